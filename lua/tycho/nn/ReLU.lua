-- max(x, 0)
local Module = require 'tycho.nn.Module'

local ReLU = Module.class()
function ReLU:init() end
function ReLU:forward(x) return x:relu() end

return ReLU
