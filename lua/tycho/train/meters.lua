-- Weighted running means of named numbers. They stay tensors until they are read, so that no step waits for a device.
local tensor = require 'tycho.tensor'
local autograd = require 'tycho.autograd'
local graph = require 'tycho.graph'
local scopes = require 'tycho.scope'

local Meters = {}
Meters.__index = Meters

-- A weighted sum, kept where the values are: in double on the CPU, in float on a device. It stays where it is for good, because a captured step
-- (tycho.graph) has its address. The weights are the host's; a name without one had nothing added.
local function new_sum(self, name, value)
  local sum = scopes.keep(tensor.zeros({}, value.device == 'cpu' and 'f64' or 'f32', value.device))
  if self.loaded[name] then sum:fill_(self.loaded[name]) end
  self.sums[name], self.loaded[name] = sum, nil
  return sum
end

-- values: name -> scalar tensor; weight: how many rows each is a mean of.
function Meters:add(values, weight)
  autograd.no_grad(function()
    for name, value in pairs(values) do
      if not tensor.is_tensor(value) or value:numel() ~= 1 then
        error(('meters: %s must be a tensor of one number, got %s'):format(tostring(name), tensor.is_tensor(value) and tensor.shape_text(value)
          or type(value)), 0)
      end
      local sum = self.sums[name] or new_sum(self, name, value)
      sum:add_(value:to(sum.dtype) * weight)
      graph.on_host(function()
        local total = (self.weights[name] or 0) + weight
        self.weights[name] = total ~= 0 and total or nil
      end)
    end
  end)
end

-- name -> {sum, weight} of those that something was added to. Waits for the device, once.
local function read(self)
  local out, names, list = {}, {}, {}
  for name, sum in pairs(self.sums) do
    if self.weights[name] then names[#names + 1], list[#list + 1] = name, sum end
  end
  local sums = #list > 0 and autograd.no_grad(scopes.scope, function() return tensor.Tensor.stack(list, 0):tolist() end) or {}
  for i, sum in ipairs(sums) do out[names[i]] = { sum, self.weights[names[i]] } end
  for name, sum in pairs(self.loaded) do out[name] = { sum, self.weights[name] } end
  return out
end

function Meters:is_empty() return next(self.weights) == nil end

-- The mean under a name, or nil. Waits for the device.
function Meters:mean(name) return self:means()[name] end

-- name -> mean. Waits for the device.
function Meters:means()
  local out = {}
  for name, row in pairs(read(self)) do out[name] = row[1] / row[2] end
  return out
end

function Meters:reset()
  for _, sum in pairs(self.sums) do sum:zero_() end
  self.weights, self.loaded = {}, {}
end

-- For a checkpoint: name -> f64 tensor (2), sum and weight.
function Meters:state_dict()
  local out = {}
  for name, row in pairs(read(self)) do out[name] = tensor.tensor(row, 'f64') end
  return out
end

function Meters:load_state_dict(source)
  for name, values in pairs(source) do
    if values.ndim ~= 1 or values:numel() ~= 2 then
      error(('meters: %s must have shape (2), sum and weight, got %s'):format(name, tensor.shape_text(values)), 0)
    end
  end
  self:reset()
  for name, values in pairs(source) do
    local sum, weight = unpack(values:tolist())
    self.weights[name] = weight
    if self.sums[name] then self.sums[name]:fill_(sum) else self.loaded[name] = sum end
  end
end

-- loaded: the sums of a checkpoint's names until something is added to them.
return function() return setmetatable({ sums = {}, weights = {}, loaded = {} }, Meters) end
