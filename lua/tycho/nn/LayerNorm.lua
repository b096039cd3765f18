-- Normalises over the last dim of the given width; eps 1e-5.
local Module = require 'tycho.nn.Module'
local tensor = require 'tycho.tensor'
local op = require 'tycho.op'
local layer_norm = op.find 'layer_norm'

local LayerNorm = Module.class()

function LayerNorm:init(width)
  op.check_count('LayerNorm', width, 'width')
  self.weight = Module.parameter(tensor.ones { width })
  self.bias = Module.parameter(tensor.zeros { width })
end

function LayerNorm:forward(x) return layer_norm(x, self.weight, self.bias) end

return LayerNorm
