-- ResNet 18, 34 and 50 (He et al. 2016) with torchvision's architecture and parameter names, without the classifier:
-- images (N,3,H,W) -> features (N, resnet.features). ResNet(depth, width): width is the channels of the first stage, 64 in the paper.
local scope = require('tycho.scope').scope
local Module = require 'tycho.nn.Module'
local Conv2d = require 'tycho.nn.Conv2d'
local BatchNorm2d = require 'tycho.nn.BatchNorm2d'
local Sequential = require 'tycho.nn.Sequential'

local function downsample(inputs, outputs, stride)
  if stride == 1 and inputs == outputs then return nil end
  return Sequential { Conv2d(inputs, outputs, 1, stride), BatchNorm2d(outputs) }
end

local BasicBlock = Module.class { scoped = true }
BasicBlock.expansion = 1

function BasicBlock:init(inputs, channels, stride)
  self.conv1 = Conv2d(inputs, channels, 3, stride, 1)
  self.bn1 = BatchNorm2d(channels)
  self.conv2 = Conv2d(channels, channels, 3, 1, 1)
  self.bn2 = BatchNorm2d(channels)
  self.downsample = downsample(inputs, channels, stride)
end

function BasicBlock:forward(x)
  local y = self.bn1(self.conv1(x), nil, true)
  local identity = self.downsample and self.downsample(x) or x
  return self.bn2(self.conv2(y), identity, true)
end

local Bottleneck = Module.class { scoped = true }
Bottleneck.expansion = 4

function Bottleneck:init(inputs, channels, stride)
  self.conv1 = Conv2d(inputs, channels, 1)
  self.bn1 = BatchNorm2d(channels)
  self.conv2 = Conv2d(channels, channels, 3, stride, 1)
  self.bn2 = BatchNorm2d(channels)
  self.conv3 = Conv2d(channels, 4 * channels, 1)
  self.bn3 = BatchNorm2d(4 * channels)
  self.downsample = downsample(inputs, 4 * channels, stride)
end

function Bottleneck:forward(x)
  local y = self.bn1(self.conv1(x), nil, true)
  y = self.bn2(self.conv2(y), nil, true)
  local identity = self.downsample and self.downsample(x) or x
  return self.bn3(self.conv3(y), identity, true)
end

local depths = {
  [18] = { block = BasicBlock, layers = { 2, 2, 2, 2 } },
  [34] = { block = BasicBlock, layers = { 3, 4, 6, 3 } },
  [50] = { block = Bottleneck, layers = { 3, 4, 6, 3 } },
}

-- The first convolution and what follows it: nothing else reads its results, the largest of all.
local function stem(net, x) return net.bn1(net.conv1(x), nil, true, { 3, 2, 1 }) end

local ResNet = Module.class { scoped = true }

function ResNet:init(depth, width)
  local plan = depths[depth]
  if not plan then error(('ResNet depth must be 18, 34 or 50, got %s'):format(tostring(depth)), 0) end
  self.conv1 = Conv2d(3, width, 7, 2, 3)
  self.bn1 = BatchNorm2d(width)
  local inputs = width
  for stage, count in ipairs(plan.layers) do
    local channels, blocks = width * 2 ^ (stage - 1), {}
    for i = 1, count do
      blocks[i] = plan.block(inputs, channels, i == 1 and stage > 1 and 2 or 1)
      inputs = channels * plan.block.expansion
    end
    self['layer' .. stage] = Sequential(blocks)
  end
  self.features = inputs
end

function ResNet:forward(x)
  x = scope(stem, self, x)
  for stage = 1, 4 do x = self['layer' .. stage](x) end
  return x:avg_pool2d()
end

return ResNet
