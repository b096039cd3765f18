-- times an expression: :bench x:matmul(x)
local evaluate = require 'tycho.repl.evaluate'
local lib = require 'tycho.lib'
local storages = require 'tycho.storage'

local ROUND, ROUNDS = 0.05, 9 -- seconds, number

local function seconds_of(chunk, count)
  local start = lib.cpu.ty_now()
  for _ = 1, count do chunk() end
  return (lib.cpu.ty_now() - start) / count
end

local function duration(seconds)
  if seconds < 1e-6 then return ('%.3g ns'):format(seconds * 1e9) end
  if seconds < 1e-3 then return ('%.4g us'):format(seconds * 1e6) end
  if seconds < 1 then return ('%.4g ms'):format(seconds * 1e3) end
  return ('%.4g s'):format(seconds)
end

return function(session, expression)
  if expression == '' then error(':bench needs an expression, as in :bench x:sum()', 0) end
  local chunk, message = evaluate.compile(expression, session.environment)
  if not chunk then error(message == true and 'the expression is not complete' or message, 0) end
  seconds_of(chunk, 1)
  lib.cpu.ty_memory_reset_peak()
  local live = storages.memory().live
  local once = seconds_of(chunk, 1)
  local bytes = storages.memory().peak - live
  local count = 1
  while once * count < ROUND and count < 2^24 do
    count = count * 2
    once = seconds_of(chunk, count)
  end
  local times = {}
  for i = 1, once > 1 and 3 or ROUNDS do times[i] = seconds_of(chunk, count) end
  table.sort(times)
  session:print(('%s (%s to %s, %d rounds of %d); %.3g MB of tensors at once'):format(duration(times[math.ceil(#times / 2)]), duration(times[1]),
    duration(times[#times]), #times, count, bytes / 1e6))
end
