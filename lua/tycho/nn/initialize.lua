-- Initial weights. Each returns a fresh f32 tensor; draws come from the default generator (tycho.rng).
local rng = require 'tycho.rng'
local tensor = require 'tycho.tensor'

local M = {}

-- N(0, std).
function M.normal(shape, std) return rng.generator:normal_tensor(shape):mul_(std) end

-- U(-bound, bound).
function M.uniform(shape, bound) return rng.generator:uniform_tensor(shape):sub_(0.5):mul_(2 * bound) end

-- He et al. 2015 for ReLU with fan_out, as torchvision's ResNet: N(0, sqrt(2 / (O KH KW))). shape (O,I,KH,KW), channels-last memory.
function M.kaiming_conv(shape)
  local fan_out = shape[1] * shape[3] * shape[4]
  return tensor.image(M.normal(shape, math.sqrt(2 / fan_out)))
end

return M
