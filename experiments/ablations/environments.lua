-- Ablation: how often each environment is drawn.
--   ./tycho experiments/ablations/environments.lua [seeds=3] [key=value ...]
-- At this scale (128 steps) the table shows which attribute the features take up first, not what a context hides; see context_mask.lua.
local ablation = require 'experiments.contextssl.ablation'

-- Every batch speaks of both attributes or of one, each a third of the time.
local function thirds(_, generator) return ({ 'rot', 'color', 'rotcolor' })[generator:integer(3) + 1] end

ablation {
  name = 'environments',
  variants = {
    { name = 'half and half', settings = { env_ratio = { 0.5, 0.5, 0 } } },
    { name = 'rotation', settings = { env_ratio = { 1, 0, 0 } } },
    { name = 'colour', settings = { env_ratio = { 0, 1, 0 } } },
    { name = 'thirds', policies = { environment = thirds } },
  },
}
