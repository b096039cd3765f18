-- stack({a, b, ...}, dim): joined along a new dim (default 0); all shapes must agree.
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'
local op = require 'tycho.op'

return {
  list = true,
  compose = function(list, dim)
    dim = dim or 0
    local rows = {}
    for i, x in ipairs(op.check_list('stack', list)) do
      local shape = x.shape
      if not tensor.same_shape(x, list[1]) then
        lib.raise(('stack: entry %d is %s, the first is %s; expected one shape'):format(i, tensor.shape_text(x), tensor.shape_text(list[1])))
      end
      if dim < 0 then dim = dim + #shape + 1 end
      if dim < 0 or dim > #shape then lib.raise(('stack: dim %d is out of range 0..%d for %s'):format(dim, #shape, tensor.shape_text(x))) end
      table.insert(shape, dim + 1, 1)
      rows[i] = x:reshape(shape)
    end
    return op.find('cat')(rows, dim)
  end,
  sample = function(g) return { g:normal_tensor({ 2, 3 }, 'f64'), g:normal_tensor({ 2, 3 }, 'f64') }, 1 end,
}
