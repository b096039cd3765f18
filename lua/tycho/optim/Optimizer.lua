-- What optimisers share: state per parameter, stepping, zeroing, saving. A subclass gives defaults, slots (names of the tensors it
-- keeps per parameter: tycho.h's m and v) and update, the call that changes all parameters; it returns the call's status.
local ffi = require 'ffi'
local graph = require 'tycho.graph'
local check_options = require 'tycho.options'
local lib = require 'tycho.lib'
local op = require 'tycho.op'
local tensor = require 'tycho.tensor'

local Optimizer = {}

local function refuse_parameters(got, ...)
  lib.raise('optimiser: expected a list of parameters, such as model:parameters(), got ' .. got:format(...))
end
local function check_parameters(list)
  if tensor.is_tensor(list) then refuse_parameters 'a tensor' end
  if type(list) ~= 'table' then refuse_parameters(type(list)) end
  if #list == 0 then refuse_parameters 'a table without any' end
  local seen = {}
  for i, p in ipairs(list) do
    if seen[p] then refuse_parameters('entry %d, which is entry %d again', i, seen[p]) end
    seen[p] = i
    if not tensor.is_tensor(p) then refuse_parameters('entry %d, which is no tensor', i) end
    if not p.requires_grad then refuse_parameters('entry %d, which requires no gradient', i) end
  end
end

function Optimizer.class()
  local class = setmetatable({}, {
    __index = Optimizer,
    __call = function(class, parameters, options)
      check_parameters(parameters)
      local self = setmetatable({ parameters = parameters, state = {} }, { __index = class })
      for key, value in pairs(class.defaults) do self[key] = value end
      for key, value in pairs(check_options('optimiser', options, class.defaults)) do
        if type(value) ~= type(class.defaults[key]) then
          lib.raise(('optimiser: %s must be a %s, got %s %s'):format(key, type(class.defaults[key]), type(value), tostring(value)))
        end
        self[key] = value
      end
      return self
    end,
  })
  return class
end

local function lasting(t)
  t.storage.lasting = true
  return t
end

local function new_state(self, p)
  local state = {}
  for _, slot in ipairs(self.slots) do state[slot] = lasting(tensor.zeros_like(p)) end
  return state
end

-- How many steps each parameter has taken, int64 beside the parameters: only the device knows which steps an overflow skipped.
local function steps_of(self)
  self.steps = self.steps or lasting(tensor.zeros({ #self.parameters }, 'i64', self.parameters[1].device))
  return self.steps
end

-- The learning rate where the device reads it. A captured step takes what self.lr is at each launch.
local function rate_of(self)
  self.rate = self.rate or lasting(tensor.empty({}, 'f64', self.parameters[1].device))
  graph.on_host(function() self.rate:fill_(self.lr) end)
  return self.rate
end

-- The parameters that have a gradient, for C, and their number.
local function with_gradients(self)
  local list, count = ffi.new('ty_parameter[?]', #self.parameters), 0
  local first, second = unpack(self.slots)
  for i, p in ipairs(self.parameters) do
    if p.grad then
      local state = self.state[i]
      if not state then
        state = new_state(self, p)
        self.state[i] = state
      end
      op.check_tensor('optimiser', p.grad, 'a gradient')
      if not tensor.same_shape(tensor.alive(p, 'optimiser'), p.grad) then
        lib.raise(('optimiser: a gradient has shape %s, its parameter %s'):format(tensor.shape_text(p.grad), tensor.shape_text(p)))
      end
      local entry = list[count]
      entry.w, entry.g, entry.number = p.c, p.grad.c, i - 1
      entry.m, entry.v = state[first].c, second and state[second].c or nil
      count = count + 1
    end
  end
  return list, count
end

-- One update of every parameter that has a gradient. scale [opt]: a scalar tensor, of whose product with the loss these are the gradients; nothing
-- happens where find_overflow has found one.
function Optimizer:step(scale)
  local list, count = with_gradients(self)
  if count == 0 then return end
  local library = self.parameters[1].lib
  lib.check(self:update(library, list, count, steps_of(self).c, scale and scale.c, scale and self.overflow.c, rate_of(self).c), library)
  for _, p in ipairs(self.parameters) do
    if p.grad then
      p.storage.version = p.storage.version + 1
      p.storage.writer = 'an optimiser step'
    end
  end
end

-- A scalar tensor on the parameters' device: 1 where one of the gradients is not finite, else 0.
function Optimizer:find_overflow()
  local p = self.parameters[1]
  self.overflow = self.overflow or lasting(tensor.empty({}, p.dtype, p.device))
  local list, count = with_gradients(self)
  lib.check(p.lib.ty_find_overflow(self.overflow.c, list, count), p.lib)
  return self.overflow
end

-- Drops and frees all gradients.
function Optimizer:zero_grad()
  for _, p in ipairs(self.parameters) do
    if p.grad then
      p.grad.storage:free()
      p.grad = nil
    end
  end
end

-- For a checkpoint: table name -> tensor, '<index from 0>.<slot>', and '<index>.step' as int64 scalars.
function Optimizer:state_dict()
  local out, steps = {}, self.steps and self.steps:cpu()
  for i = 1, #self.parameters do
    local state = self.state[i]
    if state then
      for _, slot in ipairs(self.slots) do out[('%d.%s'):format(i - 1, slot)] = state[slot] end
      out[('%d.step'):format(i - 1)] = steps:select(0, i - 1)
    end
  end
  return out
end

-- Raises for a name or a shape that is not this optimiser's.
local function check_state(self, source, where)
  local known = {}
  local function refuse(...) error(('%s does not fit this optimiser: '):format(where or 'the state dict') .. (...), 0) end
  for i, p in ipairs(self.parameters) do
    local prefix = ('%d.'):format(i - 1)
    local step = source[prefix .. 'step']
    known[prefix .. 'step'] = true
    for _, slot in ipairs(self.slots) do
      local name = prefix .. slot
      local value = source[name]
      known[name] = true
      if (value == nil) ~= (step == nil) then refuse(('of %s and %sstep one is missing'):format(name, prefix)) end
      if value and not tensor.same_shape(value, p) then
        refuse(('%s is %s, expected %s'):format(name, tensor.shape_text(value), tensor.shape_text(p)))
      end
    end
  end
  for name in pairs(source) do
    if not known[name] then refuse(('%s is unexpected; it has %d parameters with %s and step'):format(name, #self.parameters,
      table.concat(self.slots, ', '))) end
  end
end

-- source: what state_dict gave. Raises for what does not fit, and changes nothing then. where [opt]: what to call the source in that message.
function Optimizer:load_state_dict(source, where)
  check_state(self, source, where)
  local steps = tensor.zeros({ #self.parameters }, 'i64')
  for i, p in ipairs(self.parameters) do
    local step = source[('%d.step'):format(i - 1)]
    if step then
      local state = self.state[i] or new_state(self, p)
      steps:ptr()[i - 1] = step:item()
      for _, slot in ipairs(self.slots) do tensor.copy_into(state[slot], source[('%d.%s'):format(i - 1, slot)]) end
      self.state[i] = state
    elseif self.state[i] then -- in place: captured steps have the addresses
      for _, slot in ipairs(self.slots) do self.state[i][slot]:zero_() end
    end
  end
  tensor.copy_into(steps_of(self), steps)
end

return Optimizer
