-- clone(x): a copy in memory of its own.
local tensor = require 'tycho.tensor'

return {
  inputs = { 'x' },
  forward = function(_, x) return tensor.copy_into(tensor.empty_like(x), x) end,
  backward = function(_, dy) return dy end,
  sample = function(g) return g:normal_tensor({ 3, 4 }, 'f64') end,
}
