-- diagonal(x, dim, other): the elements of x whose indices along dim (default 0) and other (default 1) are equal, in a new last dim; both dims are
-- dropped. A view.
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'

local function join(c, dim, other)
  local size, stride, n = math.min(tonumber(c.shape[dim]), tonumber(c.shape[other])), c.stride[dim] + c.stride[other], 0
  for i = 0, c.ndim - 1 do
    if i ~= dim and i ~= other then
      c.shape[n], c.stride[n] = c.shape[i], c.stride[i]
      n = n + 1
    end
  end
  c.shape[n], c.stride[n], c.ndim = size, stride, n + 1
end

return {
  inputs = { 'x' },
  forward = function(ctx, x, dim, other)
    dim, other = tensor.dim(x, dim or 0, 'diagonal'), tensor.dim(x, other or 1, 'diagonal')
    if dim == other then lib.raise(('diagonal: expected two different dims, got %d twice'):format(dim)) end
    ctx.form, ctx.dim, ctx.other = ctx.grad and tensor.form(x), dim, other
    return tensor.view_of(x, 0, join, dim, other)
  end,
  backward = function(ctx, dy)
    local dx = tensor.zeros_like(ctx.form)
    tensor.copy_into(dx:diagonal(ctx.dim, ctx.other), dy)
    return dx
  end,
  sample = function(g) return g:normal_tensor({ 3, 2, 4 }, 'f64'), 0, 2 end,
}
