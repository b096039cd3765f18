-- Times work on a device: rounds of count calls each, with a wait at the end of each round. Returns the median over the rounds, the slowest one, and
-- the median of the time until the last call had returned, in seconds a call.
local device = require 'tycho.device'
local now = require('tycho.lib').cpu.ty_now

return function(where, rounds, count, fn)
  local times, busy = {}, {}
  for round = 1, rounds do
    local start = now()
    for _ = 1, count do fn() end
    busy[round] = (now() - start) / count
    device.synchronize(where)
    times[round] = (now() - start) / count
  end
  table.sort(times)
  table.sort(busy)
  local middle = math.ceil(rounds / 2)
  return times[middle], times[rounds], busy[middle]
end
