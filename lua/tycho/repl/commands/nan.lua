-- stops at the first number that is not finite and names the op and the line that made it; :nan once more: no longer
-- Every result and every gradient is read once more meanwhile. Scripts say tycho.set_break_on_nan(true), trainings break_on_nan=true.
local finite = require 'tycho.finite'

return function(session)
  finite.set(not finite.is_on)
  session:print(finite.is_on and 'the first number that is not finite raises; :nan once more ends it' or 'numbers that are not finite pass again')
end
