-- Weighted running means of named numbers. They stay tensors until they are read, so that no step waits for a device.
local tensor = require 'tycho.tensor'
local autograd = require 'tycho.autograd'

local Meters = {}
Meters.__index = Meters

-- Sums are kept where the values are: in double on the CPU, in float on a device.
local function slot_like(value) return tensor.zeros({ 2 }, value.device == 'cpu' and 'f64' or 'f32', value.device) end

-- values: name -> scalar tensor; weight: how many rows each is a mean of.
function Meters:add(values, weight)
  autograd.no_grad(function()
    for name, value in pairs(values) do
      local slot = self.slots[name]
      if not slot then
        slot = autograd.keep(slot_like(value)) -- weighted sum, weight
        self.slots[name] = slot
      elseif slot.device ~= value.device then -- a checkpoint's
        slot = autograd.keep(slot_like(value):copy_(slot))
        self.slots[name] = slot
      end
      slot[0]:add_(value:to(slot.dtype) * weight)
      slot[1]:add_(weight)
    end
  end)
end

function Meters:is_empty() return next(self.slots) == nil end

-- The mean under a name, or nil. Waits for the device.
function Meters:mean(name)
  local slot = self.slots[name]
  return slot and slot[0]:item() / slot[1]:item()
end

-- name -> mean. Waits for the device.
function Meters:means()
  local out = {}
  for name in pairs(self.slots) do out[name] = self:mean(name) end
  return out
end

function Meters:reset()
  for _, slot in pairs(self.slots) do slot.storage:free() end
  self.slots = {}
end

-- For a checkpoint: name -> f64 tensor (2).
function Meters:state_dict()
  local out = {}
  for name, slot in pairs(self.slots) do out[name] = slot:cpu():to('f64') end
  return out
end

function Meters:load_state_dict(source)
  self:reset()
  for name, values in pairs(source) do self.slots[name] = autograd.keep(tensor.zeros({ 2 }, 'f64'):copy_(values)) end
end

return function() return setmetatable({ slots = {} }, Meters) end
