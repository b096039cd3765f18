-- A running training that can be spoken to: it listens on the socket 'control' of its run directory, and between two steps serves who has attached
-- (./tycho attach RUN) with a prompt inside this process. What is typed there, and what it changed of the settings, is recorded in the run's log.
-- Asking whether somebody waits is one system call a step.
local ffi = require 'ffi'
local evaluate = require 'tycho.repl.evaluate'
local interrupt = require 'tycho.repl.interrupt'
local lib = require 'tycho.lib'
local storages = require 'tycho.storage'
local new_session = require 'tycho.repl.session'
local reload = require 'tycho.repl.reload'
local socket = require 'tycho.io.socket'

local M = { NAME = 'control' }

local Control = {}
Control.__index = Control

local function new_remote_session(self)
  local session
  local environment = evaluate.environment()
  rawset(environment, 'tycho', require 'tycho')
  for name, value in pairs(self.exposed) do rawset(environment, name, value) end
  rawset(environment, 'print', function(...)
    local texts = {}
    for i = 1, select('#', ...) do texts[i] = tostring((select(i, ...))) end
    session:print(table.concat(texts, '\t'))
  end)
  rawset(environment, 'os', setmetatable({ exit = function()
    error('os.exit would end the training; :go leaves it, loop.is_stopped = true and :go stop it with its state saved', 0)
  end }, { __index = os }))
  session = new_session { environment = environment, write = function(text, status) self.connection:send { print = text, status = status } end,
    columns = function() return self.columns or 80 end }
  session.is_remote = true
  return session
end

-- The texts of settings as key -> value, to tell what changed.
local function values_of(text)
  local out = {}
  for line in text:gmatch('[^\n]+') do
    local key, value = line:match('^([%w_]+): (.*)$')
    if key then out[key] = value end
  end
  return out
end

-- Tells the log and the person which settings are others now, and keeps them for a resumed run.
local function record_changes(self)
  local text = self.settings and self.settings()
  if not text or text == self.known then return end
  local before, after = values_of(self.known), values_of(text)
  for key, value in pairs(after) do
    if before[key] ~= value then
      local sentence = before[key] and ('%s was %s and is %s from step %d on'):format(key, before[key], value, self.loop.iteration)
        or ('%s is new, %s from step %d on; nothing but code of your own reads it'):format(key, value, self.loop.iteration)
      self.loop.run:say('changed: ' .. sentence)
      self.session:print(sentence)
    end
  end
  self.known = text
  self.loop:save() -- first: a killed run goes on from its last state with these settings
  self.loop.run:write('config.yml', text)
end

local function answer(self, message)
  local session = self.session
  if type(message.complete) == 'string' then
    local words, prefix = session:completions(message.complete)
    return self.connection:send { words = words, prefix = prefix }
  elseif type(message.hint) == 'string' then
    return self.connection:send { hint = session:hint(message.hint) or '' }
  elseif type(message.run) ~= 'string' then
    return false
  end
  self.columns = message.columns
  self.loop.run:say('attached: ' .. message.run:gsub('\n', '\n                     '))
  if session.before then session.before() end
  local ok = session:run(message.run)
  if self.loop.changed then
    local is_accepted, why = pcall(self.loop.changed)
    if not is_accepted then session:print(why, 'error') end
    ok = ok and is_accepted
  end
  record_changes(self)
  return self.connection:send { done = ok, count = session.count, steps = session.steps, over = session.is_over }
end

-- Ctrl-C of the one who is attached comes as a signal, for code that runs here, and as a message, which tells it from a signal for the training.
local function forget_interrupt()
  lib.interrupted()
  lib.on_interrupt('flag')
end

-- The next message, nil when the other side has gone, false when the training is to stop.
local function next_message(self)
  while true do
    local stopped = lib.interrupted()
    if self.connection:is_pending(200) then
      local message = self.connection:receive()
      if not (message and message.interrupt) then
        if stopped then self.loop.is_stopped = true end
        return message
      end
      forget_interrupt()
    elseif stopped then
      self.loop.is_stopped = true
      return false
    end
  end
end

local function leave(self, why)
  self.connection:close()
  self.connection, self.back_at = nil, nil
  interrupt.release()
  storages.find_site = false
  self.loop:say(('step %d: %s'):format(self.loop.iteration, why))
end

-- Serves until the other side lets the training go on.
local function serve(self)
  local loop, session = self.loop, self.session
  session.is_over, session.steps = nil, nil
  self.connection:send { hello = true, pid = ffi.C.getpid(), count = session.count, iteration = loop.iteration, total = loop.total,
    names = self.names, status = loop.status() }
  while true do
    local message = next_message(self)
    if not message or not answer(self, message) then return leave(self, 'detached, the training goes on') end
    if session.is_over and session.steps then
      self.back_at = loop.iteration + session.steps
      return
    elseif session.is_over then
      return leave(self, 'detached, the training goes on')
    end
  end
end

-- What is changed now may end the training in its next step. A state that cannot be saved, with weights that are no numbers, can be looked at.
local function save(self)
  if self.loop.iteration == self.loop.saved then return end
  local is_saved, why = pcall(self.loop.save, self.loop)
  if not is_saved then self.loop:say(why) end
end

-- Between two steps: serves whoever has attached.
function Control:poll()
  if self.connection then
    if self.loop.iteration >= self.back_at then serve(self) end
    return
  end
  local connection = self.listener:accept()
  if not connection then return end
  self.connection = connection
  self.session = self.session or new_remote_session(self)
  self.known = self.settings and self.settings()
  storages.find_site = lib.caller
  self.loop:say(('step %d: attached, the training waits'):format(self.loop.iteration))
  save(self)
  serve(self)
end

-- why: what whoever is attached is told.
function Control:close(why)
  if self.connection then
    self.connection:send { ended = why }
    leave(self, 'the training has ended')
  end
  self.listener:close()
end

-- Listens for a loop (tycho.train.loop). exposed: name -> value, the variables of the prompt; settings() [opt]: the text of the run's settings as
-- they are now.
return setmetatable(M, { __call = function(_, loop, exposed, settings)
  reload.begin()
  local self = setmetatable({ loop = loop, exposed = { loop = loop, run = loop.run, meters = loop.parts.meters }, settings = settings,
    listener = socket.listen(loop.run.path, M.NAME) }, Control)
  for name, value in pairs(exposed or {}) do self.exposed[name] = value end
  self.names = {}
  for name in pairs(self.exposed) do table.insert(self.names, name) end
  table.sort(self.names)
  return self
end })
