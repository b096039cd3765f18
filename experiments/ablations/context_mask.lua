-- Ablation: the context mask, off and at several probabilities.
--   ./tycho experiments/ablations/context_mask.lua [seeds=3] [key=value ...]
-- At this scale (128 steps) the table shows that all variants train and what their spread is, not the context: that the context hides an attribute
-- takes some 2000 steps of the demo's model and data (epochs=160 and more, width 16, five minutes a run).
local ablation = require 'experiments.contextssl.ablation'

local variants = { { name = 'off', settings = { random_mask = false } } }
for _, p in ipairs { 0.25, 0.5, 0.75, 0.9 } do
  variants[#variants + 1] = { name = tostring(p), settings = { random_mask = true, mask_prob = p } }
end

ablation { name = 'context_mask', variants = variants }
