-- Prints one row of what a section of run.lua found.
local json = require 'tycho.io.json'
return function(row)
  print('@ ' .. json.encode(row))
  io.flush()
end
