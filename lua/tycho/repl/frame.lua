-- The variables of a function as an environment: its locals and upvalues can be read and assigned, what they do not have is global. Of a running
-- function the environment is the variables themselves, of one that an error ends it is their last values.
local M = {}

-- Number of frames from the bottom of the stack to the caller of this one.
local function height()
  local n = 1
  while debug.getinfo(n, 'f') do n = n + 1 end
  return n - 2
end

-- A function's upvalues: name -> number.
local function upvalues_of(fn)
  local numbers = {}
  for i = 1, 60 do
    local name = debug.getupvalue(fn, i)
    if not name then break end
    numbers[name] = i
  end
  return numbers
end

-- The locals of a function: name -> number, a later one hiding an earlier one, and the names in order. level: as debug.getlocal has it in the caller.
local function locals_of(level)
  local numbers, names = {}, {}
  for i = 1, 250 do
    local name = debug.getlocal(level + 1, i)
    if not name then break end
    if name:match('^[%a_]') then
      if not numbers[name] then names[#names + 1] = name end
      numbers[name] = i
    end
  end
  return numbers, names
end

-- level: of the function, as debug.getinfo has it in the caller of this one.
function M.environment(level)
  local place = height() - level -- of the function, from the bottom
  local fn = debug.getinfo(level + 1, 'f').func
  local upvalues, globals = upvalues_of(fn), debug.getfenv(fn)
  local meta = {}
  function meta.__index(_, name)
    local at = height() - place + 1
    local i = locals_of(at)[name]
    if i then
      local _, value = debug.getlocal(at, i)
      return value
    end
    if upvalues[name] then
      local _, value = debug.getupvalue(fn, upvalues[name])
      return value
    end
    return globals[name]
  end
  function meta.__newindex(t, name, value)
    local at = height() - place + 1
    local i = locals_of(at)[name]
    if i then
      debug.setlocal(at, i, value)
    elseif upvalues[name] then
      debug.setupvalue(fn, upvalues[name], value)
    else
      rawset(t, name, value)
    end
  end
  -- Names of the locals and upvalues, sorted.
  function meta.names()
    local names = {}
    for _, numbers in ipairs { locals_of(height() - place + 1), upvalues } do
      for name in pairs(numbers) do names[#names + 1] = name end
    end
    table.sort(names)
    return names
  end
  return setmetatable({}, meta)
end

-- The same with the locals as they are now, which outlives the function. Its metatable's field globals is where everything else is.
function M.snapshot(level)
  local fn = debug.getinfo(level + 1, 'f').func
  local numbers, names = locals_of(level + 1)
  local upvalues, values = upvalues_of(fn), {}
  for name, i in pairs(numbers) do values[name] = select(2, debug.getlocal(level + 1, i)) end
  local meta = { globals = debug.getfenv(fn), names = function() return names end }
  function meta.__index(_, name)
    if numbers[name] then return values[name] end
    if upvalues[name] then return (select(2, debug.getupvalue(fn, upvalues[name]))) end
    return meta.globals[name]
  end
  function meta.__newindex(_, name, value)
    if numbers[name] then
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
