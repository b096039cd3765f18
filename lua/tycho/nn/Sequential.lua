-- Layers one after the other, named '0', '1', ... as in PyTorch. Sequential{a, b, c}; seq:at(0) is the first.
local lib = require 'tycho.lib'
local Module = require 'tycho.nn.Module'

local Sequential = Module.class()

function Sequential:init(layers)
  if type(layers) ~= 'table' or Module.is_module(layers) then
    lib.raise('Sequential: expected a list of layers, such as Sequential { a, b }')
  end
  self.layers_count = #layers
  for i, layer in ipairs(layers) do self[tostring(i - 1)] = layer end
end

function Sequential:at(i) return self[tostring(i)] end

function Sequential:forward(x)
  for i = 0, self.layers_count - 1 do x = self[tostring(i)](x) end
  return x
end

return Sequential
