-- Ablation: the number of tokens in a sequence.
--   ./tycho experiments/ablations/block_size.lua [seeds=3] [key=value ...]
-- At this scale (128 steps) the table shows cost and spread; longer contexts are not yet used, for which see context_mask.lua.
local ablation = require 'experiments.contextssl.ablation'

local variants = {}
for i, tokens in ipairs { 4, 8, 16, 32 } do variants[i] = { name = tostring(tokens), settings = { block_size = tokens } } end

ablation { name = 'block_size', variants = variants }
