-- tycho.pause(): opens the prompt in the middle of a program, with the locals of the function that calls it, readable and assignable. The program
-- goes on after :go or Ctrl-D.
local frame = require 'tycho.repl.frame'
local lib = require 'tycho.lib'
local repl = require 'tycho.repl'

local SHOWN = 12 -- names of locals

return function()
  local environment = frame.environment(2)
  local names = getmetatable(environment).names()
  local shown = table.concat(names, ', ', 1, math.min(#names, SHOWN)) .. (#names > SHOWN and ', ...' or '')
  io.write(('paused at %s%s; :go or Ctrl-D goes on\n'):format(lib.caller() or '?', shown ~= '' and ', with ' .. shown or ''))
  if environment.tycho == nil then rawset(environment, 'tycho', require 'tycho') end
  repl.run(repl.session(environment))
end
