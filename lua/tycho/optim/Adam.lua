-- Adam (Kingma & Ba 2015) with PyTorch's conventions: weight decay is added to the gradient, or with decoupled = true shrinks the
-- weights (AdamW). Parameters without a gradient are skipped altogether.
local Optimizer = require 'tycho.optim.Optimizer'

local Adam = Optimizer.class()

-- options: {lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0, decoupled=false}
Adam.defaults = { lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0, decoupled = false }
Adam.slots = { 'exp_avg', 'exp_avg_sq' }

function Adam:update(library, list, count, steps, scale, overflow, lr)
  return library.ty_adam(list, count, steps, scale, overflow, lr, self.beta1, self.beta2, self.eps, self.weight_decay,
    self.decoupled and 1 or 0)
end

return Adam
