-- Ablation: the loss without the auxiliary predictor's term, and with one that reads each image's own state instead of the second view's.
--   ./tycho experiments/ablations/auxiliary_predictor.lua [seeds=3] [key=value ...]
-- After 192 steps the neighbours know the hues better with the term than without, and hues and rotation best with each image's own state. What the
-- term does behind a context takes some 2000 steps of the demo's model and data: the columns of the contexts are alike here.
local ablation = require 'experiments.contextssl.ablation'
local objective = require 'experiments.contextssl.objective'

-- Reads each token's own state, whatever the environment.
local function own_state(step)
  step.equiv_logits = step.model.aug_predictor(step.normalized)
  return step.equiv_logits:mse(step.batch.latents:reshape { -1, 6 }) * step.config.weight_equiv_loss
end

local settings = { epochs = 24 } -- where the difference is larger than the spread over seeds

ablation {
  name = 'auxiliary_predictor',
  variants = {
    { name = 'on', settings = settings, terms = { equivariance = objective.terms.equivariance } },
    { name = 'off', settings = settings, terms = { equivariance = false } },
    { name = 'own state', settings = settings, terms = { equivariance = own_state } },
  },
}
