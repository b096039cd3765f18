-- contiguous(x): x itself where it is row-major without gaps, else a copy that is.
local tensor = require 'tycho.tensor'
local view = function() end

return {
  inputs = { 'x' },
  forward = function(_, x) return x:is_contiguous() and tensor.view_of(x, 0, view) or tensor.dense(x) end,
  backward = function(_, dy) return dy end,
  sample = function(g) return g:normal_tensor({ 3, 4 }, 'f64'):transpose(0, 1) end,
}
