-- select(x, dim, i): slice i of dim, which is dropped; negative i counts from the end. A view.
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'

local function drop(c, dim)
  for i = dim, c.ndim - 2 do
    c.shape[i], c.stride[i] = c.shape[i + 1], c.stride[i + 1]
  end
  c.ndim = c.ndim - 1
end

return {
  inputs = { 'x' },
  forward = function(ctx, x, dim, i)
    if x.ndim == 0 then lib.raise('select: a scalar has no dims to index') end
    dim = tensor.dim(x, dim, 'select')
    local size = x:size(dim)
    if type(i) ~= 'number' or i ~= math.floor(i) or i < -size or i >= size then
      lib.raise(('index %s is out of range 0..%d of dim %d, shape %s (tensors count from 0, Lua lists from 1)'):format(tostring(i),
        size - 1, dim, tensor.shape_text(x)))
    end
    if i < 0 then i = i + size end
    ctx.form, ctx.dim, ctx.i = ctx.grad and tensor.form(x), dim, i
    return tensor.view_of(x, i * x:stride(dim), drop, dim)
  end,
  backward = function(ctx, dy)
    local dx = tensor.zeros_like(ctx.form)
    tensor.copy_into(dx:select(ctx.dim, ctx.i), dy)
    return dx
  end,
  sample = function(g) return g:normal_tensor({ 4, 5 }, 'f64'), 1, 3 end,
}
