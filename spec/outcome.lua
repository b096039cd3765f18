-- What a line of the shell wrote, as spec.shell runs it, and behind that a line 'status N' with its exit status: one text to compare.
local shell = require 'spec.shell'

return function(line, folder) return ('%sstatus %d\n'):format(shell(line, folder)) end
