-- Adam (Kingma & Ba 2015) with PyTorch's conventions: weight decay is added to the gradient, or with decoupled = true shrinks the
-- weights (AdamW). Parameters without a gradient are skipped altogether.
local lib = require 'tycho.lib'
local Optimizer = require 'tycho.optim.Optimizer'

local Adam = Optimizer.class()

-- options: {lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0, decoupled=false}
Adam.defaults = { lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0, decoupled = false }
Adam.slots = { 'exp_avg', 'exp_avg_sq' }

function Adam:update(p, g, state)
  lib.check(p.lib.ty_adam(p.c, state.exp_avg.c, state.exp_avg_sq.c, g.c, self.lr, self.beta1, self.beta2, self.eps, self.weight_decay,
    self.decoupled and 1 or 0, state.step), p.lib)
end

return Adam
