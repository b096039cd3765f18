-- narrow(x, dim, start, length): elements start .. start+length-1 of dim. A view.
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'

local function edit(c, dim, length) c.shape[dim] = length end

return {
  inputs = { 'x' },
  forward = function(ctx, x, dim, start, length)
    dim = tensor.dim(x, dim, 'narrow')
    local size = x:size(dim)
    local are_whole = type(start) == 'number' and type(length) == 'number' and start == math.floor(start) and length == math.floor(length)
    if not are_whole or start < 0 or length < 0 or start + length > size then
      lib.raise(('narrow: start %s, length %s do not fit dim %d of size %d (tensors count from 0)'):format(tostring(start),
        tostring(length), dim, size))
    end
    ctx.form, ctx.dim, ctx.start, ctx.length = ctx.grad and tensor.form(x), dim, start, length
    return tensor.view_of(x, start * x:stride(dim), edit, dim, length)
  end,
  backward = function(ctx, dy)
    local dx = tensor.zeros_like(ctx.form)
    tensor.copy_into(dx:narrow(ctx.dim, ctx.start, ctx.length), dy)
    return dx
  end,
  sample = function(g) return g:normal_tensor({ 4, 5 }, 'f64'), 1, 2, 3 end,
}
