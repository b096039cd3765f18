-- permute(x, order): dim i of the result is dim order[i+1] of x. A view.
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'

local function edit(c, old, order)
  for i = 1, #order do
    c.shape[i - 1], c.stride[i - 1] = old.shape[order[i]], old.stride[order[i]]
  end
end

return {
  inputs = { 'x' },
  forward = function(ctx, x, wanted)
    if type(wanted) ~= 'table' then lib.raise('permute: expected a list of dims such as {1, 0}, got ' .. type(wanted)) end
    local order, inverse, named = {}, {}, 0
    for i, dim in ipairs(wanted) do
      order[i] = tensor.dim(x, dim, 'permute')
      if not inverse[order[i] + 1] then named = named + 1 end
      inverse[order[i] + 1] = i - 1
    end
    if #order ~= x.ndim or named ~= x.ndim then
      lib.raise(('permute: {%s} must name each of the %d dims of %s once'):format(table.concat(wanted, ', '), x.ndim, tensor.shape_text(x)))
    end
    ctx.inverse = inverse
    return tensor.view_of(x, 0, edit, x.c, order)
  end,
  backward = function(ctx, dy) return dy:permute(ctx.inverse) end,
  sample = function(g) return g:normal_tensor({ 2, 3, 4 }, 'f64'), { 2, 0, 1 } end,
}
