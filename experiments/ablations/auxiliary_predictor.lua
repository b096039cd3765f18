-- Ablation: the loss without the auxiliary predictor's term, and with one that reads each image's own state instead of the second view's.
--   ./tycho experiments/ablations/auxiliary_predictor.lua [seeds=3] [key=value ...]
local ablation = require 'experiments.contextssl.ablation'
local objective = require 'experiments.contextssl.objective'

-- Reads each token's own state, whatever the environment.
local function own_state(step)
  step.equiv_logits = step.model.aug_predictor(step.normalized)
  return step.equiv_logits:mse(step.batch.latents:reshape { -1, 6 }) * step.config.weight_equiv_loss
end

ablation {
  name = 'auxiliary_predictor',
  variants = {
    { name = 'on', terms = { equivariance = objective.terms.equivariance } },
    { name = 'off', terms = { equivariance = false } },
    { name = 'own state', terms = { equivariance = own_state } },
  },
}
