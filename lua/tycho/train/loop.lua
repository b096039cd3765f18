-- The frame of a training: counts steps and epochs, goes back to the last training state, saves new ones, and ends in good order at Ctrl-C, SIGTERM
-- or an error. Knows nothing of what a step does. A step must be a pure function of the state and its number; then a resumed run equals an
-- uninterrupted one bit for bit, for nothing here depends on a clock but the moments at which the state is saved.
--
--   local loop = new_loop { run =, parts = (tycho.train.checkpoint, with meters), total =, per_epoch = (steps), items = (images a step),
--     minutes = (between states; nil: none but the asked ones), identity = (name -> number: a state with other ones belongs to other data),
--     step = function(iteration), close_epoch = function(epoch) -> false when it was interrupted, status = function() -> text,
--     command = (what goes on with the run), exposed = (name -> value: what ./tycho attach sees), settings = function() -> their text [opt],
--     changed = function() called after each text that somebody ran there, which may raise what it takes back of that [opt] }
--   loop:restore(); local finished = loop:train()
local lfs = require 'lfs'
local autograd = require 'tycho.autograd'
local scope = require('tycho.scope').scope
local checkpoint = require 'tycho.train.checkpoint'
local json = require 'tycho.io.json'
local lib = require 'tycho.lib'
local new_control = require 'tycho.train.control'
local progress = require 'tycho.train.progress'
local provenance = require 'tycho.train.provenance'

local Loop = {}
Loop.__index = Loop

-- To the terminal and to the run's log.
function Loop:say(text)
  self.line:say(text)
  self.run:say(text)
end

local function accept(identity, path)
  return function(state)
    local step = type(state) == 'table' and state.iteration
    if type(step) ~= 'number' or step < 0 or step % 1 ~= 0 then
      error(('%s does not say which step it is of: expected a whole number, got %s'):format(path, tostring(step)), 0)
    end
    for name, number in pairs(identity) do
      local was = type(state.data) == 'table' and state.data[name]
      if was ~= number then
        error(('%s was made on data with %s %s, these have %s; resume with the data that the run began with'):format(path, tostring(was), name,
          number), 0)
      end
    end
  end
end

-- Raises for a run without a training state that ended with one.
local function expect_none(self)
  local ended = json.read(self.run.path .. '/status.json')
  local iteration = ended and ended.status ~= 'failed' and tonumber(ended.iteration) or 0
  if iteration > 0 then
    error(('%s is missing, the state in which the run ended after step %d; put it back, or start a new run'):format(self.path, iteration), 0)
  end
end

-- Goes back to the last training state, or to the beginning where there is none yet.
function Loop:restore()
  if lfs.attributes(self.path) then
    self.iteration = checkpoint.load(self.path, self.parts, accept(self.identity, self.path)).iteration
  else
    expect_none(self)
  end
  if self.iteration > self.total then
    error(('%s has done %d epochs already, more than epochs=%d'):format(self.run.path, self.iteration / self.per_epoch,
      self.total / self.per_epoch), 0)
  end
  -- With full meters the row of this very iteration has yet to be logged.
  self.closed = self.parts.meters:is_empty() and self.iteration or nil
  local last = self.closed or self.iteration - 1
  self.run:trim(function(row) return row.iteration <= last end)
  self.first, self.saved = self.iteration, self.iteration
end

-- Raises if the numbers have left the rails (the meter 'loss', or a weight, or every step overflowed): such a state is never saved.
function Loop:check_finite()
  local scaler = self.parts.optimizers.scaler
  if scaler then scaler:check(self.iteration == self.total and self.total < 20 and self.total or nil) end
  local sum = autograd.no_grad(scope, function()
    local total = 0
    for _, module in pairs(self.parts.modules) do
      for _, p in ipairs(module:parameters()) do total = total + p:sum():item() end
    end
    return total
  end) + (self.parts.meters:mean 'loss' or 0)
  if sum - sum ~= 0 then
    error(('the loss or a weight is not a finite number after step %d; a new run with a lower learning_rate may help'):format(self.iteration), 0)
  end
end

-- Writes the training state.
function Loop:save()
  self:check_finite()
  self.parts.state = { iteration = self.iteration, data = self.identity }
  local mode = lib.on_interrupt('hold')
  checkpoint.save(self.path, self.parts)
  lib.on_interrupt(mode)
  self.saved, self.saved_at = self.iteration, self.line:elapsed()
end

local function is_save_due(self)
  return self.iteration ~= self.saved and self.line:elapsed() - self.saved_at >= 60 * (self.minutes or math.huge)
end

-- Returns whether it came to the end.
local function go(self)
  while true do
    self.control:poll()
    local stopped = lib.interrupted() or self.is_stopped
    if not stopped and self.iteration % self.per_epoch == 0 and self.iteration ~= self.closed then
      self:check_finite()
      stopped = self.close_epoch(self.iteration / self.per_epoch) == false
      self.closed = self.iteration
    end
    if stopped or is_save_due(self) then self:save() end
    if stopped then
      self:say(('stopped after step %d of %d; go on with: %s'):format(self.iteration, self.total, self.command))
      return false
    end
    if self.iteration == self.total then return true end
    self.step(self.iteration)
    self.iteration = self.iteration + 1
    self.line:update(self.iteration, self.status, self.items)
  end
end

-- Says in status.json how the training ended: 'finished', 'stopped' or 'failed'. While it runs there is none.
local function conclude(self, status, message)
  self.run:write('status.json', json.encode({ status = status, message = message, iteration = self.iteration, total = self.total }) .. '\n')
end

-- What resuming changed, in words; empty for a run that begins.
local function changes(self)
  local list = self.first > 0 and provenance.changes(self.run.path, self.run.made_with) or {}
  for i, text in ipairs(list) do list[i] = text .. '; from here the numbers may not be those of an uninterrupted run' end
  return list
end

-- Trains to the end (true) or until Ctrl-C or SIGTERM (false): then the state is saved.
function Loop:train()
  self.line, self.saved_at = progress('train', self.total, self.first), 0
  for _, text in ipairs(changes(self)) do self:say(text) end
  if self.first == self.total and self.closed == self.total then
    conclude(self, 'finished')
    self:say(('%s has done all its %d epochs; epochs=N goes on for longer'):format(self.run.path, self.total / self.per_epoch))
    return true
  end
  os.remove(self.run.path .. '/status.json')
  self:say(('%s: step %d of %d, %d steps an epoch'):format(self.run.path, self.first, self.total, self.per_epoch))
  self.control = new_control(self, self.exposed, self.settings)
  lib.on_interrupt('flag')
  local ok, finished = xpcall(go, lib.remember, self)
  lib.on_interrupt(nil)
  self.control:close(ok and (finished and 'it is finished' or 'it was stopped') or 'it failed: ' .. tostring(finished))
  if not ok then
    conclude(self, 'failed', tostring(finished))
    self.run:say('failed: ' .. tostring(finished))
    self:say(('the state after step %d is kept; go on from there with: %s'):format(self.saved, self.command))
    error(finished, 0)
  end
  conclude(self, finished and 'finished' or 'stopped')
  if finished then self:say(('trained %d steps in %.0f s'):format(self.total - self.first, self.line:elapsed())) end
  return finished
end

return function(options)
  local self = setmetatable({ iteration = 0, path = options.run.path .. '/checkpoint.safetensors' }, Loop)
  for key, value in pairs(options) do self[key] = value end
  return self
end
