-- expand(x, shape): x broadcast to shape (NumPy rules) without copying; -1 keeps a size of x. A view with strides 0.
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
  forward = function(ctx, x, wanted)
    tensor.check_shape('expand', wanted, -1)
    local n, shape = x.ndim, {}
    local fits = n <= #wanted
    for i = 1, #wanted do
      local dim = n - #wanted + i - 1 -- of x
      local size = dim >= 0 and x:size(dim) or nil
      shape[i] = wanted[i] == -1 and size or wanted[i]
      fits = fits and shape[i] >= 0 and (not size or size == 1 or size == shape[i])
    end
    if not fits then lib.raise(('expand: %s does not broadcast to {%s}'):format(tensor.shape_text(x), table.concat(wanted, ', '))) end
    tensor.check_shape('expand', shape)
    ctx.form = ctx.grad and tensor.form(x)
    return tensor.view_of(x, 0, edit, shape)
  end,
  backward = function(ctx, dy) return op.sum_to(dy, ctx.form) end,
  sample = function(g) return g:normal_tensor({ 3, 1 }, 'f64'), { 2, 3, 4 } end,
}
