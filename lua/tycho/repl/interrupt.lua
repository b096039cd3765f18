-- Ctrl-C for code that runs at the prompt: ops and writes ask for it themselves (lib.on_interrupt), Lua code is stopped here.
-- Compiled loops ask nobody but the profiler, which they leave for the interpreter when its signal came. So the profiler runs without its timer, and
-- Ctrl-C sends that signal (csrc/storage.c); what is compiled is then dropped, and the interpreter's hook raises the error.
local ffi = require 'ffi'
local lib = require 'tycho.lib'
local storages = require 'tycho.storage'
local profile = require 'jit.profile'

ffi.cdef [[
typedef struct { long seconds, microseconds, first_seconds, first_microseconds; } tycho_timer;
int setitimer(int which, const tycho_timer *timer, tycho_timer *before);
]]
local ITIMER_PROF, EVERY_LINE = 2, 'li1000000'
local INSTRUCTIONS = 1000 -- between two calls of the hook

local M = {}

local asked, listening, is_running = false, false, false

-- Where an op has raised the error already, nothing is left to do. The books of memory are never left half-written.
local books = debug.getinfo(storages.new, 'S').source
local function hook()
  if not asked or debug.getinfo(2, 'S').source == books then return end
  asked = false
  if lib.interrupted() then error('interrupted', 0) end
end

local function stop()
  if not is_running then return end
  asked = true
  jit.off()
  jit.flush()
end

-- For a profiler of one's own, at each of its samples.
function M.look()
  if lib.cpu.ty_unwanted[0] ~= 0 then stop() end
end

local function listen()
  profile.start(EVERY_LINE, stop)
  ffi.C.setitimer(ITIMER_PROF, ffi.new('tycho_timer'), nil)
  listening = true
end

-- Gives the profiler away until the next M.call.
function M.release()
  if listening then profile.stop() end
  listening = false
end

local function finish(compiles, mode, hook_before, mask, count, ...)
  is_running = false
  debug.sethook(hook_before, mask, count)
  lib.on_interrupt(mode)
  if compiles then jit.on() end
  return ...
end

-- Returns what fn(...) returns; Ctrl-C raises 'interrupted' inside it. fn itself must not raise.
function M.call(fn, ...)
  if not listening then listen() end
  local compiles = jit.status()
  local hook_before, mask, count = debug.gethook()
  asked, is_running = false, true
  lib.interrupted()
  local mode = lib.on_interrupt('raise')
  debug.sethook(hook, '', INSTRUCTIONS)
  return finish(compiles, mode, hook_before, mask, count, fn(...))
end

return M
