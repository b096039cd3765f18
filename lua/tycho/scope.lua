-- tycho.scope: memory that ends with a function.
local autograd = require 'tycho.autograd'
local lib = require 'tycho.lib'
local storages = require 'tycho.storage'
local tensor = require 'tycho.tensor'
local _, CONTEXT, NUMBER, _, FIRST = unpack(autograd.FIELDS)

local M = {}

-- The storages of the tensors in a table, put at the end of list.
local function add_storages(list, from)
  for _, value in pairs(from) do
    if tensor.is_tensor(value) then list[#list + 1] = value.storage end
  end
end

-- The storages that backward from these roots reads, and how many of the nodes after number `first` keep each. The nodes' contexts learn what they
-- hold.
local function held_for(roots, first)
  local holders, seen = {}, {}
  while #roots > 0 do
    local node = table.remove(roots)
    if node and node[NUMBER] > first and not seen[node] then
      seen[node] = true
      local context = node[CONTEXT]
      if context then
        local held = {}
        for _, from in ipairs { context, context.saved_list or {}, context.owned or {} } do add_storages(held, from) end
        context.held = held
        for _, s in ipairs(held) do holders[s] = (holders[s] or 0) + 1 end
      end
      for i = FIRST, #node do roots[#roots + 1] = node[i] and rawget(node[i], 'node') end
    end
  end
  return holders
end

-- Frees every tensor made inside fn except those that it returns (also inside one level of tables), leaf gradients, and tensors marked with
-- tycho.keep. What backward from the returned tensors needs is the tape's, which frees it as it walks. Returns what fn returns. fn may not yield to a
-- coroutine outside.
function M.scope(fn, ...)
  lib.check_callable('scope', fn)
  local level, first = storages.enter(), autograd.count()
  local kept, roots = {}, {}
  local function mark(value, depth)
    if tensor.is_tensor(value) then
      roots[#roots + 1] = rawget(value, 'node')
      if not value.storage.pins then
        value.storage.pins = 1
        kept[#kept + 1] = value.storage
      end
    elseif depth > 0 and type(value) == 'table' then
      for _, v in pairs(value) do mark(v, depth - 1) end
    end
  end
  local function finish(ok, ...)
    if not ok then
      storages.unwind(level)
      error((...), 0)
    end
    for i = 1, select('#', ...) do mark((select(i, ...)), 1) end
    storages.leave(level, nil, roots[1] and held_for(roots, first))
    for i = 1, #kept do kept[i].pins = nil end
    return ...
  end
  return finish(xpcall(fn, lib.remember, ...))
end

-- Lets a tensor outlive the scopes that it was made in.
function M.keep(t)
  if not tensor.is_tensor(t) then lib.raise('keep: expected a tensor, got ' .. type(t)) end
  t.storage.lasting = true
  return t
end

return M
