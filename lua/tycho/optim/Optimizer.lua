-- What optimisers share: state per parameter, stepping, zeroing, saving. A subclass gives defaults, slots (names of the tensors it
-- keeps per parameter) and update(p, g, state).
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'

local Optimizer = {}

function Optimizer.class()
  local class = setmetatable({}, {
    __index = Optimizer,
    __call = function(class, parameters, options)
      local self = setmetatable({ parameters = parameters, state = {} }, { __index = class })
      for key, value in pairs(class.defaults) do self[key] = value end
      for key, value in pairs(options or {}) do
        if class.defaults[key] == nil then
          local known = {}
          for k in pairs(class.defaults) do known[#known + 1] = k end
          table.sort(known)
          lib.raise(("unknown optimiser option '%s'; expected one of %s"):format(key, table.concat(known, ', ')))
        end
        self[key] = value
      end
      return self
    end,
  })
  return class
end

local function new_state(self, p)
  local state = { step = 0 }
  for _, slot in ipairs(self.slots) do
    state[slot] = tensor.zeros_like(p)
    state[slot].storage.lasting = true
  end
  return state
end

-- One update of every parameter that has a gradient.
function Optimizer:step()
  for i, p in ipairs(self.parameters) do
    local g = p.grad
    if g then
      local state = self.state[i]
      if not state then
        state = new_state(self, p)
        self.state[i] = state
      end
      state.step = state.step + 1
      self:update(p, g, state)
      p.storage.version = p.storage.version + 1
      p.storage.writer = 'an optimiser step'
    end
  end
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
  local out = {}
  for i = 1, #self.parameters do
    local state = self.state[i]
    if state then
      for _, slot in ipairs(self.slots) do out[('%d.%s'):format(i - 1, slot)] = state[slot] end
      out[('%d.step'):format(i - 1)] = tensor.tensor(state.step, 'i64')
    end
  end
  return out
end

function Optimizer:load_state_dict(source)
  for i, p in ipairs(self.parameters) do
    local step = source[('%d.step'):format(i - 1)]
    if step then
      local state = new_state(self, p)
      state.step = step:item()
      for _, slot in ipairs(self.slots) do
        local value = source[('%d.%s'):format(i - 1, slot)]
        if not value or not tensor.same_shape(value, p) then
          error(('the optimiser state of parameter %d does not fit shape %s'):format(i - 1, tensor.shape_text(p)), 0)
        end
        tensor.copy_into(state[slot], value)
      end
      self.state[i] = state
    end
  end
end

return Optimizer
