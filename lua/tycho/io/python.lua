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

local DEEPEST = 100 -- of tuples within each other

local function branch(tree, key)
  tree[key] = tree[key] or {}
  return tree[key]
end

-- What stands for a key in the index of d: numbers, strings and booleans themselves, and for each content of a tuple or int64 a table of d's.
-- nil when Python could not hash it either, or for tuples without end. known: what stands for the tuples within the key [opt].
local function identity(d, key, known, depth)
  local kind = type(key)
  if key == key and (kind == 'string' or kind == 'number' or kind == 'boolean' or key == M.none) then return key end
  if kind == 'cdata' then return branch(d.whole, tostring(key)) end
  known, depth = known or {}, depth or 0
  if not M.is_tuple(key) or depth > DEEPEST then return nil end
  if known[key] then return known[key] end
  local here = d.tuples
  for i = 1, #key do
    local part = identity(d, key[i], known, depth + 1)
    if part == nil then return nil end
    here = branch(here, part)
  end
  known[key] = here
  return here
end

-- A dict of { key, value } pairs, in their order. ordered: whether PyTorch shall see an OrderedDict (default) or a dict.
function M.dict(pairs_list, ordered)
  local d = setmetatable({ keys = {}, values = {}, index = {}, whole = {}, tuples = {}, ordered = ordered ~= false }, Dict)
  for _, pair in ipairs(pairs_list or {}) do d:set(pair[1], pair[2]) end
  return d
end

-- Adds or replaces; returns false for a key that cannot be one. Raises for no value: M.none is one.
function Dict:set(key, value)
  if value == nil then error(('Dict:set: %s has no value; None is python.none'):format(tostring(key)), 0) end
  local id = identity(self, key)
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
function Dict:get(key) return self.values[self.index[identity(self, key)]] end
function Dict:len() return #self.keys end

-- No closure over the Dict: compiled code would keep it, and with it the tensors of a whole checkpoint, alive for good.
local function step(d, key)
  local i = key == nil and 1 or d.index[identity(d, key)] + 1
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
