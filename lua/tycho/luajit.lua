-- What LuaJIT as Debian 12 ships it (2.1.0-beta3 of March 2022) gets wrong, mended. Loaded before anything else.
local next = next

-- A compiled loop over pairs that holds another loop may end early, or skip an element (LuaJIT issues 827 and 1510), because the compiler
-- patches the bytecode of a loop over next itself while it runs. It leaves loops over other functions alone.
local function step(t, key) return next(t, key) end

rawset(_G, 'pairs', function(t)
  if type(t) ~= 'table' then error(("bad argument #1 to 'pairs' (table expected, got %s)"):format(type(t)), 2) end
  return step, t
end)
