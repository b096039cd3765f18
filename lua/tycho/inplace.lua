-- Changes of tensors in place: what they refuse, and how they are told to a backward that saved the values before. tensor.lua brings it along.
local ffi = require 'ffi'
local lib = require 'tycho.lib'
local M = require 'tycho.tensor'
local Tensor, raise = M.Tensor, lib.raise

-- Whether what is computed from t now has a history.
function M.is_recorded(t)
  return (t.requires_grad or t.node) and require('tycho.autograd').enabled()
end

-- Raises for a number that an integer dtype has not.
function M.check_element(op, dtype, value)
  if dtype.real then return end
  if type(value) == 'number' and value % 1 ~= 0 then raise(('%s: %s takes whole numbers, got %s'):format(op, dtype.name, tostring(value))) end
  if value < dtype.least or value > dtype.most then
    raise(('%s: %s takes numbers from %.0f to %.0f, got %s'):format(op, dtype.name, dtype.least, dtype.most, tostring(value)))
  end
end

-- Call before an in-place change: refuses tensors that a gradient will flow to, and marks the storage so that a backward
-- that saved the old values says so.
function M.touch(t, op)
  M.alive(t, op)
  if M.is_recorded(t) then
    raise(('%s: in-place change of a tensor that is part of a gradient; use tycho.no_grad(function() ... end)'):format(op))
  end
  local c = t.c
  for i = 0, t:numel() > 0 and c.ndim - 1 or -1 do
    if c.stride[i] == 0 and c.shape[i] > 1 then raise(('%s: elements of this expanded tensor share memory; change a clone'):format(op)) end
  end
  t.storage.version = t.storage.version + 1
  t.storage.writer = op
end

-- The bytes between which a tensor lies.
local function extent(t)
  local first, last = tonumber(ffi.cast('intptr_t', t.c.data)), 0
  for i = 0, t.c.ndim - 1 do last = last + (tonumber(t.c.shape[i]) - 1) * tonumber(t.c.stride[i]) end
  return first, first + (last + 1) * t.type.size
end

-- x as the source of an in-place change of t: a copy where the change would reach elements of x that are still to be read.
local function source(t, x, op)
  M.alive(x, op)
  if M.is_recorded(x) then
    raise(('%s: an in-place change does not carry the gradient of its source; detach it, or compute out of place'):format(op))
  end
  if x.storage ~= t.storage then return x end
  local t_first, t_end = extent(t)
  local x_first, x_end = extent(x)
  local is_same = t_first == x_first and M.same_shape(t, x) and M.same_order(t, x)
  if is_same or t_end <= x_first or x_end <= t_first then return x end
  return M.copy_into(M.empty_like(x), x)
end

-- self = x, broadcast and converted.
function Tensor:copy_(x)
  M.touch(self, 'copy_')
  if not M.is_tensor(x) then raise(('copy_: expected a tensor, got %s; fill_ takes a number'):format(type(x))) end
  return M.copy_into(self, source(self, x, 'copy_'))
end
function Tensor:fill_(value)
  M.touch(self, 'fill_')
  if type(value) ~= 'number' then raise(('fill_: expected a number, got %s'):format(type(value))) end
  M.check_element('fill_', self.type, value)
  lib.check(self.lib.ty_fill(self.c, value), self.lib)
  return self
end
function Tensor:zero_() return self:fill_(0) end
for _, name in ipairs { 'add', 'sub', 'mul', 'div' } do
  local symbol = 'ty_' .. name
  -- self = self (op) x, elementwise; x: tensor or number.
  Tensor[name .. '_'] = function(self, x)
    M.touch(self, name .. '_')
    if type(x) == 'number' then
      x = M.scalar_like(self, x)
    elseif not M.is_tensor(x) then
      raise(('%s_: expected a tensor or a number, got %s'):format(name, type(x)))
    end
    lib.check(self.lib[symbol](self.c, self.c, source(self, x, name .. '_').c), self.lib)
    return self
  end
end
