-- y = x weight^T + bias. weight (out, in), bias (out); both U(-1/sqrt(in), 1/sqrt(in)) at first, as PyTorch.
local Module = require 'tycho.nn.Module'
local initialize = require 'tycho.nn.initialize'
local op = require 'tycho.op'
local linear = op.find 'linear'

local Linear = Module.class { scoped = true }

function Linear:init(inputs, outputs)
  op.check_count('Linear', inputs, 'inputs')
  op.check_count('Linear', outputs, 'outputs')
  local bound = 1 / math.sqrt(inputs)
  self.weight = Module.parameter(initialize.uniform({ outputs, inputs }, bound))
  self.bias = Module.parameter(initialize.uniform({ outputs }, bound))
end

function Linear:forward(x) return linear(x, self.weight, self.bias) end

return Linear
