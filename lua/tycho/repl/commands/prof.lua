-- where the time of an expression goes, by line: :prof train_step()
local evaluate = require 'tycho.repl.evaluate'
local interrupt = require 'tycho.repl.interrupt'
local profile = require 'jit.profile'

local SHOWN = 15
local states = { N = 'compiled', I = 'interpreted', C = 'C', G = 'collecting', J = 'compiling' }

return function(session, expression)
  if expression == '' then error(':prof needs an expression, as in :prof step()', 0) end
  local chunk, message = evaluate.compile(expression, session.environment, 'prompt')
  if not chunk then error(message == true and 'the expression is not complete' or message, 0) end
  local total, places, kinds = 0, {}, {}
  interrupt.release()
  profile.start('li2', function(thread, samples, state)
    local place = profile.dumpstack(thread, 'pl', 1)
    total = total + samples
    places[place] = (places[place] or 0) + samples
    kinds[state] = (kinds[state] or 0) + samples
    interrupt.look()
  end)
  local ok, failure = pcall(chunk)
  profile.stop()
  if not ok then error(failure, 0) end
  if total == 0 then error('it was over before a sample was taken (they are 2 ms apart); repeat it in a loop', 0) end
  local order = {}
  for place in pairs(places) do order[#order + 1] = place end
  table.sort(order, function(a, b) return places[a] > places[b] end)
  local lines, parts = {}, {}
  for i = 1, math.min(#order, SHOWN) do lines[i] = ('%5.1f%%  %s'):format(100 * places[order[i]] / total, order[i]) end
  for state, samples in pairs(kinds) do parts[#parts + 1] = ('%.0f%% %s'):format(100 * samples / total, states[state] or state) end
  table.sort(parts)
  session:print(('%s\n%d samples: %s'):format(table.concat(lines, '\n'), total, table.concat(parts, ', ')))
end
