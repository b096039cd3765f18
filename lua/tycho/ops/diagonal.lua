-- diagonal(x, dim1, dim2): the elements whose places in two dims are equal; the two are dropped and the diagonal is the last dim. A view.
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'

local function edit(c, a, b)
  local size, stride, kept = math.min(tonumber(c.shape[a]), tonumber(c.shape[b])), c.stride[a] + c.stride[b], 0
  for i = 0, c.ndim - 1 do
    if i ~= a and i ~= b then
      c.shape[kept], c.stride[kept] = c.shape[i], c.stride[i]
      kept = kept + 1
    end
  end
  c.shape[kept], c.stride[kept], c.ndim = size, stride, kept + 1
end

return {
  inputs = { 'x' },
  forward = function(ctx, x, dim1, dim2)
    local a, b = tensor.dim(x, dim1, 'diagonal'), tensor.dim(x, dim2, 'diagonal')
    if a == b then lib.raise(('diagonal: needs two dims of %s, got dim %d twice'):format(tensor.shape_text(x), a)) end
    ctx.x, ctx.a, ctx.b = ctx.grad and x or nil, a, b
    return tensor.view_of(x, 0, edit, a, b)
  end,
  backward = function(ctx, dy)
    local dx = tensor.zeros_like(ctx.x)
    tensor.copy_into(dx:diagonal(ctx.a, ctx.b), dy)
    return dx
  end,
  sample = function(g) return g:normal_tensor({ 3, 2, 4 }, 'f64'), 0, -1 end,
}
