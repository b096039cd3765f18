-- Stochastic gradient descent with momentum and L2 weight decay, PyTorch's conventions.
local Optimizer = require 'tycho.optim.Optimizer'

local SGD = Optimizer.class()

-- options: {lr=1e-2, momentum=0, weight_decay=0}
SGD.defaults = { lr = 1e-2, momentum = 0, weight_decay = 0 }
SGD.slots = { 'velocity' }

function SGD:update(library, list, count, steps, scale, overflow, lr)
  return library.ty_sgd(list, count, steps, scale, overflow, lr, self.momentum, self.weight_decay)
end

return SGD
