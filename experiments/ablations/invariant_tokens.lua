-- Ablation: tokens with their actions, and without.
--   ./tycho experiments/ablations/invariant_tokens.lua [seeds=3] [key=value ...]
-- At this scale (128 steps) the table shows what the actions cost or gain without a context; for its effect see context_mask.lua.
local ablation = require 'experiments.contextssl.ablation'

ablation {
  name = 'invariant_tokens',
  variants = {
    { name = 'with actions', settings = { is_invariant = false } },
    { name = 'without', settings = { is_invariant = true } },
  },
}
