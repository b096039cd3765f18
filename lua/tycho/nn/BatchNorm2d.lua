-- Batch normalisation over (N,H,W) per channel, with the residual addition and the ReLU, or the ReLU and the max pooling, that follow it in a
-- ResNet fused in.
local Module = require 'tycho.nn.Module'
local tensor = require 'tycho.tensor'
local graph = require 'tycho.graph'
local op = require 'tycho.op'
local batch_norm = op.find 'batch_norm'

local BatchNorm2d = Module.class()

function BatchNorm2d:init(channels)
  op.check_count('BatchNorm2d', channels, 'channels')
  self.weight = Module.parameter(tensor.ones { channels })
  self.bias = Module.parameter(tensor.zeros { channels })
  self.running_mean = tensor.zeros { channels }
  self.running_var = tensor.ones { channels }
  self.num_batches_tracked = tensor.zeros({}, 'i64')
end

-- act(norm(x) + residual); residual may be nil, relu: apply ReLU. pool [opt] = {kernel, stride, padding}: max pooling of that, without a residual.
function BatchNorm2d:forward(x, residual, relu, pool)
  if self.training then
    graph.on_host(function() self.num_batches_tracked:ptr()[0] = self.num_batches_tracked:ptr()[0] + 1 end)
  end
  return batch_norm(x, self.weight, self.bias, residual, { running_mean = self.running_mean, running_var = self.running_var,
    training = self.training, relu = relu, pool = pool })
end

return BatchNorm2d
