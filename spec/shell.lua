-- Runs a line of the shell in a folder (the project's, where none is given), with nothing to read. Returns all that it wrote and its exit status.
local lib = require 'tycho.lib'

return function(line, folder)
  local pipe = io.popen(('cd %s && { %s\n} 2>&1 </dev/null; echo "status $?"'):format(folder or lib.root, line))
  local text, status = pipe:read('*a'):match '^(.*)status (%d+)\n$'
  pipe:close()
  return text, tonumber(status)
end
