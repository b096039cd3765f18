-- One line on a terminal that is rewritten, or a line every ten seconds in a log.
local ffi = require 'ffi'
local lib = require 'tycho.lib'
pcall(ffi.cdef, 'int isatty(int fd);')

local Progress = {}
Progress.__index = Progress

local function duration(seconds)
  if seconds ~= seconds or seconds > 359999 then return '?' end
  local m, s = math.floor(seconds / 60), math.floor(seconds % 60)
  return m >= 60 and ('%d:%02d:%02d'):format(math.floor(m / 60), m % 60, s) or ('%d:%02d'):format(m, s)
end

-- total: steps in all; done: steps done before (a resumed run).
function Progress:init(label, total, done)
  self.label, self.total, self.first, self.start = label, total, done or 0, lib.cpu.ty_now()
  self.terminal = ffi.C.isatty(2) == 1
  self.interval, self.shown = self.terminal and 0.2 or 10, self.terminal and 0 or self.start
  return self
end

local function write(self, line, ending)
  io.stderr:write(self.terminal and '\r\27[K' or '', line, ending)
  io.stderr:flush()
end

-- After `step` steps; text: what to say besides, or a function that returns it and is called only when the line is shown. items: images or rows
-- done per step, for the rate.
function Progress:update(step, text, items)
  local now = lib.cpu.ty_now()
  if now - self.shown < self.interval and not (self.terminal and step == self.total) then return end
  self.shown = now
  if type(text) == 'function' then text = text() end
  local elapsed = now - self.start
  local done = step - self.first
  local left = done > 0 and elapsed / done * (self.total - step) or 0 / 0
  local rate = items and elapsed > 0 and ('  %.0f images/s'):format(items * done / elapsed) or ''
  write(self, ('%s %d/%d  %s%s  %s left'):format(self.label, step, self.total, text or '', rate, duration(left)), self.terminal and '' or '\n')
end

-- A line that stays, above the one that is rewritten.
function Progress:say(text) write(self, text, '\n') end

-- Ends the line. text replaces it, if given.
function Progress:finish(text)
  if text then self:say(text) elseif self.terminal then io.stderr:write('\n') end
end

function Progress:elapsed() return lib.cpu.ty_now() - self.start end

return function(label, total, done) return setmetatable({}, Progress):init(label, total, done) end
