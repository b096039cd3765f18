-- mse(x, target): mean of the squared difference over all elements. Both have one shape: a target (N) of an x (N, 1) would be (N, N) differences.
local lib = require 'tycho.lib'
local op = require 'tycho.op'
local tensor = require 'tycho.tensor'

return {
  compose = function(x, target)
    if not tensor.same_shape(op.check_tensor('mse', x, 'x'), op.check_tensor('mse', target, 'target')) then
      lib.raise(('mse: x is %s and target %s; expected one shape, which :reshape or :expand makes'):format(tensor.shape_text(x),
        tensor.shape_text(target)))
    end
    return (x - target):square():mean()
  end,
  sample = function(g) return g:normal_tensor({ 3, 4 }, 'f64'), g:normal_tensor({ 3, 4 }, 'f64') end,
}
