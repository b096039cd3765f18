-- tycho.pause(): opens the prompt in the middle of a program, with the locals of the function that calls it, readable and assignable. The program
-- goes on after :go or Ctrl-D; :up and :down go between its frames.
local frame = require 'tycho.repl.frame'
local lib = require 'tycho.lib'
local repl = require 'tycho.repl'
local trace = require 'tycho.repl.trace'

local SHOWN = 12 -- names of locals

return function()
  local frames = trace.frames(2, nil, frame.environment)
  local environment = frames[1].environment
  local names = getmetatable(environment).names()
  local shown = table.concat(names, ', ', 1, math.min(#names, SHOWN)) .. (#names > SHOWN and ', ...' or '')
  io.write(('paused at %s%s; :go or Ctrl-D goes on\n'):format(lib.caller() or '?', shown ~= '' and ', with ' .. shown or ''))
  if environment.tycho == nil then rawset(environment, 'tycho', require 'tycho') end
  local session = repl.session(frames)
  session.is_paused = true
  repl.run(session)
end
