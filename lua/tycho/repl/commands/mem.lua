-- the largest live tensors, where they were made, and what is in use
local storages = require 'tycho.storage'
local tensor = require 'tycho.tensor'

local SHOWN, DEPTH = 12, 3

-- Names of the session's variables and what they hold, by storage.
local function names_of(session)
  local names, seen = {}, {}
  local function visit(value, name, depth)
    if tensor.is_tensor(value) then
      names[value.storage] = names[value.storage] or name
      if value.grad then visit(value.grad, name .. '.grad', depth) end
    elseif type(value) == 'table' and not seen[value] and depth <= DEPTH then
      seen[value] = true
      for key, entry in pairs(value) do
        if type(key) == 'string' or type(key) == 'number' then
          visit(entry, ('%s%s'):format(name, type(key) == 'number' and ('[%d]'):format(key) or '.' .. key), depth + 1)
        end
      end
    end
  end
  for name, value in pairs(session:variables()) do visit(value, name, 1) end
  visit(session.out, 'Out', 1)
  return names
end

return function(session)
  storages.collect()
  local names, list = names_of(session), storages.list()
  table.sort(list, function(a, b) return a.bytes > b.bytes end)
  local lines = {}
  for i = 1, math.min(#list, SHOWN) do
    local entry = list[i]
    lines[i] = ('%10.3f MB  %-20s %s'):format(entry.bytes / 1e6, names[entry.storage] or '(no variable)', entry.storage.site or '')
  end
  if #list > SHOWN then lines[#lines + 1] = ('%d more'):format(#list - SHOWN) end
  local memory = storages.memory()
  lines[#lines + 1] = ('%.3f MB in %d tensors, at most %.3f so far; %.3f MB kept for reuse; Lua itself %.3f MB'):format(memory.live / 1e6, #list,
    memory.peak / 1e6, memory.cached / 1e6, collectgarbage 'count' / 1e3)
  session:print(table.concat(lines, '\n'))
end
