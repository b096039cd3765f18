-- reshape(x, shape): the same elements in row-major order under another shape; one size may be -1. A view where x is contiguous.
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'

local function edit(c, shape)
  c.ndim = #shape
  local step = 1
  for i = #shape, 1, -1 do
    c.shape[i - 1], c.stride[i - 1] = shape[i], step
    step = step * shape[i]
  end
end

local function resolve(x, wanted)
  tensor.check_shape('reshape', wanted, -1)
  local shape, hole, holes, known = {}, nil, 0, 1
  for i, size in ipairs(wanted) do
    shape[i] = size
    if size == -1 then hole, holes = i, holes + 1 else known = known * size end
  end
  local count = x:numel()
  if hole then shape[hole] = known == 0 and 0 or count / known end
  local product = 1
  for _, size in ipairs(shape) do product = product * size end
  if product ~= count or holes > 1 or (hole and shape[hole] % 1 ~= 0) then
    lib.raise(('reshape: %s has %d elements, which do not fit {%s}'):format(tensor.shape_text(x), count, table.concat(wanted, ', ')))
  end
  return shape
end

return {
  inputs = { 'x' },
  forward = function(ctx, x, shape)
    ctx.shape = x.shape
    return tensor.view_of(tensor.dense(x), 0, edit, resolve(x, shape))
  end,
  backward = function(ctx, dy) return dy:reshape(ctx.shape) end,
  sample = function(g) return g:normal_tensor({ 2, 3, 4 }, 'f64'), { 6, -1 } end,
}
