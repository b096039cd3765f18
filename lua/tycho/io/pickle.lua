-- A restricted pickle machine: the opcodes that PyTorch's checkpoints use, protocols 2 to 5. It builds numbers, strings, lists,
-- tuples and dicts, and calls nothing but the constructors it is handed; every other global is refused by name. It cannot run code.
-- Format: CPython's Lib/pickletools.py.
local ffi = require 'ffi'
local file = require 'tycho.io.file'
local python = require 'tycho.io.python'
local u16, u32 = file.u16, file.u32
local none, is_tuple, is_dict = python.none, python.is_tuple, python.is_dict

local M = {}

local LARGEST_PICKLE = 64 * 2^20
local MOST_OBJECTS = 500000

-- A global that the machine may name: call(args) builds a value from a tuple, nil when it only names a type.
local Global = {}
Global.__index = Global
function M.global(fields) return setmetatable(fields, Global) end

local function is_list(x) return type(x) == 'table' and getmetatable(x) == nil end

-- Two's complement, little-endian: a Lua number when exact, int64 otherwise; nil when neither holds it.
local function long(p, n)
  local negative = n > 0 and p[n - 1] >= 128
  local value, exact = 0, true
  local bits = ffi.new('uint64_t', negative and -1 or 0)
  for i = n - 1, 0, -1 do
    local byte = tonumber(p[i])
    local next_value = value * 256 + (negative and 255 - byte or byte)
    exact = exact and next_value - value * 256 == (negative and 255 - byte or byte)
    value = next_value
    bits = bits * 256 + byte
  end
  if negative then
    exact, value = exact and value + 1 - value == 1, -(value + 1)
  end
  if exact and (n > 8 or math.abs(value) <= 2^53) then return value end
  return n <= 8 and ffi.cast('int64_t', bits) or nil
end

local machine = {}
machine.__index = machine

function machine:fail(message, ...)
  file.fail(self.where, 'the pickle is damaged or foreign at byte %d: ' .. message, self.at, ...)
end

function machine:take(n)
  if n > self.size - self.at then self:fail('it ends in the middle of a value') end
  local p = self.bytes + self.at
  self.at = self.at + n
  return p
end

function machine:push(value)
  self.top = self.top + 1
  self.stack[self.top] = value
end

-- The floor below which an opcode may not reach: the innermost mark.
function machine:pop()
  local top = self.top
  if top <= (self.marks[#self.marks] or 0) then self:fail('the stack is empty') end
  local value = self.stack[top]
  self.stack[top], self.top = nil, top - 1
  return value
end
function machine:peek()
  if self.top <= (self.marks[#self.marks] or 0) then self:fail('the stack is empty') end
  return self.stack[self.top]
end

-- The values above the innermost mark, as a list; removes the mark.
function machine:pop_to_mark()
  local mark = table.remove(self.marks)
  if not mark then self:fail('no mark on the stack') end
  local out = {}
  for i = mark + 1, self.top do
    out[i - mark] = self.stack[i]
    self.stack[i] = nil
  end
  self.top = mark
  return out
end

function machine:made(value)
  self.objects = self.objects + 1
  if self.objects > MOST_OBJECTS then self:fail('more than %d objects', MOST_OBJECTS) end
  self:push(value)
end

function machine:tuple(n)
  local out = {}
  for i = n, 1, -1 do out[i] = self:pop() end
  self:made(python.tuple(out))
end

function machine:text(n)
  return ffi.string(self:take(n), n)
end
function machine:line()
  local start = self.at
  for i = start, math.min(self.size, start + 1000) - 1 do
    if self.bytes[i] == 10 then
      self.at = i + 1
      return ffi.string(self.bytes + start, i - start)
    end
  end
  self:fail('a name does not end')
end

function machine:find(module, name)
  if type(module) ~= 'string' or type(name) ~= 'string' then self:fail('a global without a name') end
  local found = self.globals[module .. ' ' .. name]
  if not found then
    file.fail(self.where, 'refused: it names the Python object %s.%s, which is not needed for tensors and could run code; '
      .. 'save model.state_dict() instead', module, name)
  end
  self:push(found)
end

function machine:set(dict, key, value)
  if not is_dict(dict) then self:fail('expected a dict to fill') end
  if not dict:set(key, value) then self:fail('a dict key of an unhashable type') end
end

function machine:remember(index)
  self.memo[index] = self:peek()
end
function machine:recall(index)
  local value = self.memo[index]
  if value == nil then self:fail('memo %d was never stored', index) end
  self:push(value)
end

local ops = {}
ops[0x80] = function(m)
  local protocol = m:take(1)[0]
  if protocol > 5 then m:fail('protocol %d is newer than 5', protocol) end
end
ops[0x95] = function(m) m:take(8) end -- FRAME: its length only helps to read ahead
ops[0x28] = function(m) m.marks[#m.marks + 1] = m.top end
ops[0x7d] = function(m) m:made(python.dict({}, false)) end
ops[0x5d] = function(m) m:made({}) end
ops[0x29] = function(m) m:tuple(0) end
ops[0x85] = function(m) m:tuple(1) end
ops[0x86] = function(m) m:tuple(2) end
ops[0x87] = function(m) m:tuple(3) end
ops[0x74] = function(m) m:made(python.tuple(m:pop_to_mark())) end
ops[0x4e] = function(m) m:push(none) end
ops[0x88] = function(m) m:push(true) end
ops[0x89] = function(m) m:push(false) end
ops[0x4b] = function(m) m:push(tonumber(m:take(1)[0])) end
ops[0x4d] = function(m) m:push(u16(m:take(2))) end
ops[0x4a] = function(m)
  local n = u32(m:take(4))
  m:push(n < 2^31 and n or n - 2^32)
end
ops[0x8a] = function(m)
  local n = m:take(1)[0]
  local value = long(m:take(n), n)
  if value == nil then m:fail('an integer of %d bytes has no exact value here', n) end
  m:push(value)
end
ops[0x47] = function(m)
  local p, double = m:take(8), ffi.new('union { uint8_t bytes[8]; double value; }')
  for i = 0, 7 do double.bytes[i] = p[7 - i] end
  local special = p[0] == 255 and p[1] >= 240 -- a NaN with a sign, read as a number, could pass for another Lua type
  if special then double.bytes[7] = 127 end
  m:push(special and double.value == math.huge and -math.huge or double.value)
end
ops[0x55] = function(m) m:push(m:text(m:take(1)[0])) end -- the strings of Python 2
ops[0x54] = function(m) m:push(m:text(u32(m:take(4)))) end
ops[0x8c] = function(m) m:push(m:text(m:take(1)[0])) end
ops[0x58] = function(m) m:push(m:text(u32(m:take(4)))) end
ops[0x8d] = function(m) m:push(m:text(file.u64(m:take(8)))) end
ops[0x71] = function(m) m:remember(tonumber(m:take(1)[0])) end
ops[0x72] = function(m) m:remember(u32(m:take(4))) end
ops[0x94] = function(m)
  m:remember(m.memoized)
  m.memoized = m.memoized + 1
end
ops[0x68] = function(m) m:recall(tonumber(m:take(1)[0])) end
ops[0x6a] = function(m) m:recall(u32(m:take(4))) end
ops[0x63] = function(m)
  local module = m:line()
  m:find(module, m:line())
end
ops[0x93] = function(m)
  local name = m:pop()
  m:find(m:pop(), name)
end
ops[0x73] = function(m)
  local value = m:pop()
  local key = m:pop()
  m:set(m:peek(), key, value)
end
ops[0x75] = function(m)
  local items = m:pop_to_mark()
  local dict = m:peek()
  if #items % 2 == 1 then m:fail('a key without a value') end
  for i = 1, #items, 2 do m:set(dict, items[i], items[i + 1]) end
end
ops[0x61] = function(m)
  local value = m:pop()
  local list = m:peek()
  if not is_list(list) then m:fail('expected a list to fill') end
  list[#list + 1] = value
end
ops[0x65] = function(m)
  local items = m:pop_to_mark()
  local list = m:peek()
  if not is_list(list) then m:fail('expected a list to fill') end
  for i = 1, #items do list[#list + 1] = items[i] end
end
ops[0x51] = function(m) m:made(m.persistent(m:pop())) end
ops[0x52] = function(m)
  local args = m:pop()
  local global = m:pop()
  if getmetatable(global) ~= Global or not global.call or not is_tuple(args) then m:fail('a call of something that is no constructor') end
  m:made(global.call(args))
end
ops[0x62] = function(m) -- the state holds attributes of Python objects (_metadata, hooks): nothing that tensors need
  m:pop()
  local object = m:peek()
  if not (is_dict(object) and object.ordered) then m:fail('state for an object that takes none') end
end

local STOP = 0x2e

-- Runs one pickle that begins at byte `at` of bytes; returns its value and the position after it.
-- globals: 'module name' -> M.global{...}; persistent(id): value of a persistent id; where: the file, for errors.
function M.load(bytes, size, at, globals, persistent, where)
  local m = setmetatable({ bytes = bytes, size = math.min(size, at + LARGEST_PICKLE), at = at, where = where, globals = globals,
    persistent = persistent, stack = {}, top = 0, marks = {}, memo = {}, memoized = 0, objects = 0 }, machine)
  while true do
    local code = m:take(1)[0]
    if code == STOP then return m:pop(), m.at end
    local op = ops[code]
    if not op then m:fail('opcode 0x%02x is not one that tensors need', code) end
    op(m)
  end
end

return M
