-- reshape_heads(x, heads): (B,T,E) -> (B,H,T,E/H), the last dim of unit stride. A view.
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'
local op = require 'tycho.op'

local function edit(c, heads)
  local width = c.shape[2] / heads
  c.ndim = 4
  c.shape[2], c.stride[2] = c.shape[1], c.stride[1]
  c.shape[1], c.stride[1] = heads, width
  c.shape[3], c.stride[3] = width, 1
end

return {
  inputs = { 'x' },
  forward = function(ctx, x, heads)
    op.check_count('reshape_heads', heads, 'heads')
    if x.ndim ~= 3 or x:size(2) % heads ~= 0 or x:stride(2) ~= 1 and x:size(2) ~= 1 then
      lib.raise(('reshape_heads: expected (B, T, E) with E a multiple of %d heads and unit stride, got %s'):format(heads, tensor.shape_text(x)))
    end
    ctx.shape = x.shape
    return tensor.view_of(x, 0, edit, heads)
  end,
  backward = function(ctx, dy) return dy:transpose(1, 2):reshape(ctx.shape) end,
  sample = function(g) return g:normal_tensor({ 2, 3, 8 }, 'f64'), 2 end,
}
