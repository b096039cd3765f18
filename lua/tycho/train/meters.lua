-- Weighted running means of named numbers. They stay tensors until they are read, so that no step waits for a device.
local tensor = require 'tycho.tensor'
local autograd = require 'tycho.autograd'

local Meters = {}
Meters.__index = Meters

-- A weighted sum and its weight, kept where the values are: in double on the CPU, in float on a device. It stays where it is for good, because a
-- captured step (tycho.graph) has its address; a weight of 0 means that nothing was added.
local function new_slot(self, name, value)
  local slot = autograd.keep(tensor.zeros({ 2 }, value.device == 'cpu' and 'f64' or 'f32', value.device))
  local loaded = self.loaded[name]
  if loaded then slot:copy_(tensor.tensor(loaded, slot.dtype)) end
  self.slots[name], self.loaded[name] = slot, nil
  return slot
end

-- values: name -> scalar tensor; weight: how many rows each is a mean of.
function Meters:add(values, weight)
  autograd.no_grad(function()
    for name, value in pairs(values) do
      local slot = self.slots[name] or new_slot(self, name, value)
      slot[0]:add_(value:to(slot.dtype) * weight)
      slot[1]:add_(weight)
    end
  end)
end

-- name -> {sum, weight} of those that something was added to. Waits for the device, once.
local function read(self)
  local out, names, list = {}, {}, {}
  for name, slot in pairs(self.slots) do names[#names + 1], list[#list + 1] = name, slot end
  local rows = #list > 0 and autograd.no_grad(autograd.scope, function() return tensor.Tensor.stack(list, 0):tolist() end) or {}
  for i, row in ipairs(rows) do out[names[i]] = row[2] ~= 0 and row or nil end
  for name, row in pairs(self.loaded) do out[name] = row end
  return out
end

function Meters:is_empty() return next(read(self)) == nil end

-- The mean under a name, or nil. Waits for the device.
function Meters:mean(name) return self:means()[name] end

-- name -> mean. Waits for the device.
function Meters:means()
  local out = {}
  for name, row in pairs(read(self)) do out[name] = row[1] / row[2] end
  return out
end

function Meters:reset()
  for _, slot in pairs(self.slots) do slot:zero_() end
  self.loaded = {}
end

-- For a checkpoint: name -> f64 tensor (2).
function Meters:state_dict()
  local out = {}
  for name, row in pairs(read(self)) do out[name] = tensor.tensor(row, 'f64') end
  return out
end

function Meters:load_state_dict(source)
  self:reset()
  for name, values in pairs(source) do
    if self.slots[name] then self.slots[name]:copy_(values) else self.loaded[name] = values:tolist() end
  end
end

-- loaded: {sum, weight} of a checkpoint's names until something is added to them.
return function() return setmetatable({ slots = {}, loaded = {} }, Meters) end
