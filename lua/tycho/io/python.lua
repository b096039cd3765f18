-- Python's containers as Lua values, for pickles: Dict keeps the order of its keys, Tuple marks a list as a tuple, none stands for
-- None (nil would leave holes). A Python list is a plain Lua list.
local M = {}

M.none = setmetatable({}, { __tostring = function() return 'None' end })

M.Tuple = {}
function M.tuple(list) return setmetatable(list, M.Tuple) end
function M.is_tuple(x) return getmetatable(x) == M.Tuple end

local Dict = {}
Dict.__index = Dict
M.Dict = Dict
function M.is_dict(x) return getmetatable(x) == Dict end

-- What stands for a key in the index: numbers, strings and booleans themselves, tuples and int64 by their content.
-- nil when Python could not hash it either.
local function identity(key)
  local kind = type(key)
  if key == key and (kind == 'string' or kind == 'number' or kind == 'boolean' or key == M.none) then return key end
  if kind == 'cdata' then return '\0' .. tostring(key) end
  if not M.is_tuple(key) then return nil end
  local parts = {}
  for i = 1, #key do
    local part = identity(key[i])
    if part == nil then return nil end
    parts[i] = type(part):sub(1, 1) .. tostring(part)
  end
  return '\0(' .. table.concat(parts, '\0') .. ')'
end

-- A dict of { key, value } pairs, in their order. ordered: whether PyTorch shall see an OrderedDict (default) or a dict.
function M.dict(pairs_list, ordered)
  local d = setmetatable({ keys = {}, values = {}, index = {}, ordered = ordered ~= false }, Dict)
  for _, pair in ipairs(pairs_list or {}) do d:set(pair[1], pair[2]) end
  return d
end

-- Adds or replaces; returns false for a key that cannot be one.
function Dict:set(key, value)
  local id = identity(key)
  if id == nil then return false end
  local i = self.index[id]
  if not i then
    i = #self.keys + 1
    self.index[id], self.keys[i] = i, key
  end
  self.values[i] = value
  return true
end

-- The value, or nil.
function Dict:get(key) return self.values[self.index[identity(key)]] end
function Dict:len() return #self.keys end

-- No closure over the Dict: compiled code would keep it, and with it the tensors of a whole checkpoint, alive for good.
local function step(d, key)
  local i = key == nil and 1 or d.index[identity(key)] + 1
  return d.keys[i], d.values[i]
end

-- for key, value in d:pairs() do ... end, in order.
function Dict:pairs() return step, self end

-- x, or the Dict that a list of {name, value} is, as Module:state_dict gives it.
function M.named(x)
  local is_list = type(x) == 'table' and getmetatable(x) == nil and #x > 0
  for _, entry in ipairs(is_list and x or {}) do
    is_list = is_list and type(entry) == 'table' and getmetatable(entry) == nil and #entry == 2 and type(entry[1]) == 'string'
  end
  return is_list and M.dict(x) or x
end

-- The same for a Dict or a plain table.
function M.pairs(t)
  if M.is_dict(t) then return t:pairs() end
  return pairs(t)
end

return M
