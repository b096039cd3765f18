-- Ablation: the context mask, off and at several probabilities.
--   ./tycho experiments/ablations/context_mask.lua [seeds=3] [key=value ...]
local ablation = require 'experiments.contextssl.ablation'

local variants = { { name = 'off', settings = { random_mask = false } } }
for _, p in ipairs { 0.25, 0.5, 0.75, 0.9 } do
  variants[#variants + 1] = { name = tostring(p), settings = { random_mask = true, mask_prob = p } }
end

ablation { name = 'context_mask', variants = variants }
