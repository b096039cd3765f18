-- a prompt inside a running training, between two steps: attach RUN
local ffi = require 'ffi'
local file = require 'tycho.io.file'
local lib = require 'tycho.lib'
local repl = require 'tycho.repl'
local run_directory = require 'tycho.train.run'
local session = require 'tycho.repl.session'
local socket = require 'tycho.io.socket'
local terminal = require 'tycho.repl.terminal'

local SIGINT = 2

local usage = [[
usage: ./tycho attach RUN     RUN is the directory of a run that trains now
The training waits at its next step until :go or Ctrl-D; :go 10 comes back after 10 steps. What is typed is recorded in RUN/train.log.]]

-- A session whose variables are in the other process; has what tycho.repl asks of one.
local Remote = {}
Remote.__index = Remote

local function lost() error('the training has ended', 0) end

-- The message that has come.
local function take(self)
  local message = self.connection:receive() or lost()
  if message.ended then error('the training has ended: ' .. message.ended, 0) end
  return message
end

-- The next message. While it is waited for, Ctrl-C goes to the code that runs over there.
local function receive(self)
  while not self.connection:is_pending(100) do
    if lib.interrupted() then
      ffi.C.kill(self.pid or 0, SIGINT)
      self.connection:send { interrupt = true }
    end
  end
  return take(self)
end

local function greet(self)
  while not self.connection:is_pending(1500) do
    if lib.interrupted() then error('not attached', 0) end
    if not self.has_waited then io.stderr:write('waiting for the end of a step (or of an evaluation) ...\n') end
    self.has_waited = true
  end
  local hello = take(self)
  self.pid, self.count = hello.pid, hello.count
  print(('step %d of %d  %s'):format(hello.iteration, hello.total, hello.status))
  return hello
end

function Remote:run(text)
  if not self.connection:send { run = text, columns = (terminal.size()) } then lost() end
  while true do
    local message = receive(self)
    if message.print then
      self.write(message.print, message.status)
    elseif message.done ~= nil then
      self.count = message.count
      if message.steps then greet(self) else self.is_over = message.over end
      return message.done
    end
  end
end

function Remote:completions(text)
  if not self.connection:send { complete = text } then lost() end
  local message = receive(self)
  return message.words, message.prefix
end

function Remote:hint(text)
  if not text:find('[({]') then return nil end
  if not self.connection:send { hint = text } then lost() end
  local hint = receive(self).hint
  return hint ~= '' and hint or nil
end

Remote.is_whole = session.is_whole

local function connect(path)
  run_directory.check(path, 'attach')
  local lock = file.lock(path .. '/attached')
  if not lock then error(('%s is attached already, by another terminal; one at a time'):format(path), 0) end
  local connection, why = socket.connect(path, 'control')
  if connection then return connection, lock end
  if why == 'dead' then
    error(('%s does not train any more: its process has ended and left the socket behind; resume=%s goes on'):format(path, path), 0)
  end
  if why == 'absent' then error(('%s does not train now; resume=%s goes on with it'):format(path, path), 0) end
  error(('cannot attach to %s: %s'):format(path, why), 0)
end

return function(arguments)
  local path = arguments[1] and arguments[1]:gsub('(.)/+$', '%1')
  if not path or path == '--help' or path == '-h' or arguments[2] then
    print(usage)
    return path == '--help' and 0 or path == '-h' and 0 or 1
  end
  local connection, lock = connect(path)
  lib.on_interrupt('flag')
  local remote = setmetatable({ connection = connection, write = repl.writer() }, Remote)
  local hello = greet(remote)
  print(('attached to %s; the training waits. Here: %s. :go or Ctrl-D lets it go on.'):format(path, table.concat(hello.names, ', ')))
  local all_well = repl.run(remote)
  connection:close()
  lock:close()
  return (terminal.is_interactive() or all_well) and 0 or 1
end
