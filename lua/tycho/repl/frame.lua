-- The variables of a function as an environment: its locals and upvalues can be read and assigned, what they do not have is global. Of a running
-- function the environment is the variables themselves, of one that an error ends it is their last values.
local M = {}

-- Number of frames from the bottom of the stack to the caller of this one.
local function height()
  local n = 1
  while debug.getinfo(n, 'f') do n = n + 1 end
  return n - 2
end

-- The names of a function's upvalues, in order.
local function upvalue_names(fn)
  local names = {}
  for i = 1, 60 do
    local name = debug.getupvalue(fn, i)
    if not name then break end
    names[i] = name
  end
  return names
end

-- level: of the function, as debug.getinfo has it in the caller of this one.
function M.environment(level)
  local place = height() - level -- of the function, from the bottom
  local fn = debug.getinfo(level + 1, 'f').func
  local upvalues, globals = {}, debug.getfenv(fn)
  for i, name in ipairs(upvalue_names(fn)) do upvalues[name] = i end
  -- The names of its locals with their numbers; a later one hides an earlier one.
  local function locals()
    local at, out = height() - place + 1, {}
    for i = 1, 250 do
      local name = debug.getlocal(at, i)
      if not name then break end
      if name:match('^[%a_]') then out[name] = i end
    end
    return out
  end
  local meta = {}
  function meta.__index(_, name)
    local i = locals()[name]
    if i then
      local _, value = debug.getlocal(height() - place + 1, i)
      return value
    end
    if upvalues[name] then
      local _, value = debug.getupvalue(fn, upvalues[name])
      return value
    end
    return globals[name]
  end
  function meta.__newindex(t, name, value)
    local i = locals()[name]
    if i then
      debug.setlocal(height() - place + 1, i, value)
    elseif upvalues[name] then
      debug.setupvalue(fn, upvalues[name], value)
    else
      rawset(t, name, value)
    end
  end
  -- Names of the locals and upvalues, sorted.
  function meta.names()
    local names = {}
    for name in pairs(locals()) do names[#names + 1] = name end
    for name in pairs(upvalues) do names[#names + 1] = name end
    table.sort(names)
    return names
  end
  return setmetatable({}, meta)
end

-- The same with the locals as they are now, which outlives the function. Its metatable's field globals is where everything else is.
function M.snapshot(level)
  local fn = debug.getinfo(level + 1, 'f').func
  local names, values, is_local, upvalues = {}, {}, {}, {}
  for i = 1, 250 do
    local name, value = debug.getlocal(level + 1, i)
    if not name then break end
    if name:match('^[%a_]') then
      if not is_local[name] then names[#names + 1] = name end
      is_local[name], values[name] = true, value
    end
  end
  for i, name in ipairs(upvalue_names(fn)) do upvalues[name] = i end
  local meta = { globals = debug.getfenv(fn), names = function() return names end }
  function meta.__index(_, name)
    if is_local[name] then return values[name] end
    if upvalues[name] then return (select(2, debug.getupvalue(fn, upvalues[name]))) end
    return meta.globals[name]
  end
  function meta.__newindex(_, name, value)
    if is_local[name] then
      values[name] = value
    elseif upvalues[name] then
      debug.setupvalue(fn, upvalues[name], value)
    else
      meta.globals[name] = value
    end
  end
  return setmetatable({}, meta)
end

return M
