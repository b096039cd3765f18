-- Stochastic gradient descent with momentum and L2 weight decay, PyTorch's conventions.
local lib = require 'tycho.lib'
local Optimizer = require 'tycho.optim.Optimizer'

local SGD = Optimizer.class()

-- options: {lr=1e-2, momentum=0, weight_decay=0}
SGD.defaults = { lr = 1e-2, momentum = 0, weight_decay = 0 }
SGD.slots = { 'velocity' }

function SGD:update(p, g, state)
  lib.check(p.lib.ty_sgd(p.c, state.velocity.c, g.c, self.lr, self.momentum, self.weight_decay, state.step == 1 and 1 or 0), p.lib)
end

return SGD
