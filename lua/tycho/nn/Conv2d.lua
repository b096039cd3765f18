-- Convolution without bias. weight (out, in, kernel, kernel), He-initialised as torchvision's ResNet.
local Module = require 'tycho.nn.Module'
local initialize = require 'tycho.nn.initialize'
local op = require 'tycho.op'
local conv2d = op.find 'conv2d'

local Conv2d = Module.class { scoped = true }

function Conv2d:init(inputs, outputs, kernel, stride, padding)
  op.check_count('Conv2d', inputs, 'inputs')
  op.check_count('Conv2d', outputs, 'outputs')
  op.check_count('Conv2d', kernel, 'kernel')
  stride, padding = stride or 1, padding or 0
  op.check_count('Conv2d', stride, 'stride')
  op.check_whole('Conv2d', padding, 'padding')
  self.weight = Module.parameter(initialize.kaiming_conv { outputs, inputs, kernel, kernel })
  self.stride, self.padding = stride, padding
end

function Conv2d:forward(x) return conv2d(x, self.weight, self.stride, self.padding) end

return Conv2d
