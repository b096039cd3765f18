-- expand(x, shape): x broadcast to shape (NumPy rules) without copying. A view with strides 0.
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'
local op = require 'tycho.op'

local function edit(c, shape)
  local n, old = #shape, c.ndim
  for i = n - 1, 0, -1 do
    local j = i - (n - old)
    local stride = 0
    if j >= 0 and c.shape[j] == shape[i + 1] then stride = c.stride[j] end
    c.shape[i], c.stride[i] = shape[i + 1], stride
  end
  c.ndim = n
end

return {
  inputs = { 'x' },
  forward = function(ctx, x, shape)
    local n = x.ndim
    for i = 1, n do
      local size = x:size(n - i)
      if n > #shape or (size ~= 1 and size ~= shape[#shape + 1 - i]) then
        lib.raise(('expand: %s does not broadcast to {%s}'):format(tensor.shape_text(x), table.concat(shape, ', ')))
      end
    end
    ctx.x = ctx.grad and x or nil
    return tensor.view_of(x, 0, edit, shape)
  end,
  backward = function(ctx, dy) return op.sum_to(dy, ctx.x) end,
  sample = function(g) return g:normal_tensor({ 3, 1 }, 'f64'), { 2, 3, 4 } end,
}
