-- cat({a, b, ...}, dim): joined along an existing dim (default 0); all other sizes must agree.
local tensor = require 'tycho.tensor'
local lib = require 'tycho.lib'

return {
  inputs = { 'list' },
  list = true,
  forward = function(ctx, list, dim)
    local first = list[1]
    dim = tensor.dim(first, dim or 0, 'cat')
    local shape, starts = first.shape, {}
    shape[dim + 1] = 0
    for i, x in ipairs(list) do
      local fits = x.ndim == #shape and x.type == first.type
      for d = 0, #shape - 1 do fits = fits and (d == dim or x:size(d) == shape[d + 1]) end
      if x.c.device ~= first.c.device then
        lib.raise(("cat: entry %d is on %s, the others are on %s; move one with :to('%s')"):format(i, x.device, first.device, first.device))
      elseif not fits then
        lib.raise(('cat: entry %d is %s %s, which does not join %s %s along dim %d'):format(i, x.dtype, tensor.shape_text(x),
          first.dtype, tensor.shape_text(first), dim))
      end
      starts[i] = shape[dim + 1]
      shape[dim + 1] = starts[i] + x:size(dim)
    end
    local y = tensor.empty(shape, first.dtype, first.device)
    local sizes = {}
    for i, x in ipairs(list) do
      sizes[i] = x:size(dim)
      tensor.copy_into(y:narrow(dim, starts[i], sizes[i]), x)
    end
    ctx.dim, ctx.starts, ctx.sizes = dim, starts, sizes
    return y
  end,
  backward = function(ctx, dy)
    local grads = {}
    for i, start in ipairs(ctx.starts) do grads[i] = dy:narrow(ctx.dim, start, ctx.sizes[i]) end
    return grads
  end,
  sample = function(g) return { g:normal_tensor({ 2, 3 }, 'f64'), g:normal_tensor({ 2, 1 }, 'f64') }, 1 end,
}
