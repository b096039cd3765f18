-- Times work on a device: rounds of count calls each, with a wait at the end of each round. Returns the median over the rounds and the slowest one,
-- in seconds a call.
local device = require 'tycho.device'
local now = require('tycho.lib').cpu.ty_now

return function(where, rounds, count, fn)
  local times = {}
  for round = 1, rounds do
    local start = now()
    for _ = 1, count do fn() end
    device.synchronize(where)
    times[round] = (now() - start) / count
  end
  table.sort(times)
  return times[math.ceil(rounds / 2)], times[rounds]
end
