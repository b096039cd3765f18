-- Ablation: tokens with their actions, and without.
--   ./tycho experiments/ablations/invariant_tokens.lua [seeds=3] [key=value ...]
local ablation = require 'experiments.contextssl.ablation'

ablation {
  name = 'invariant_tokens',
  variants = {
    { name = 'with actions', settings = { is_invariant = false } },
    { name = 'without', settings = { is_invariant = true } },
  },
}
