-- Reads files, or rows of memory, into the rows of a tensor by threads of the C library, while the caller goes on. The plan is fixed at the start
-- and errors come in its order, so results do not depend on the number of threads. Knows no data set.
local ffi = require 'ffi'
local lib = require 'tycho.lib'

local Job = {}
Job.__index = Job
local M = {}

local PATIENCE = 0.1 -- seconds between looks for Ctrl-C

-- Jobs whose threads may still write: address of the C side -> storage, and whether a scope may end it. Holds the memory until the threads have
-- ended, however the job ends.
local writing = {}

local function address(handle) return tonumber(ffi.cast('intptr_t', handle)) end
local function stop(handle)
  local key = address(handle)
  lib.cpu.ty_loader_stop(handle)
  local memory = writing[key]
  memory.storage.lasting = memory.lasting
  writing[key] = nil
end

local function new_job(handle, count, into, from)
  if handle == nil then lib.raise(ffi.string(lib.cpu.ty_error())) end
  local storage = into.storage
  writing[address(handle)] = { storage = storage, lasting = storage.lasting, from = from and from.storage }
  storage.lasting = true
  return setmetatable({ handle = ffi.gc(handle, stop), count = count, into = into }, Job)
end

-- plan: {paths = list of files, into = y, rows = list of the rows of y that they go to (default: in order), threads = most threads (0: the
-- caller does the work now), head = bytes that records begin with}. y decides what becomes of a file:
--   u8 (N,H,W,3)  decoded to RGB and resized
--   f64 (N,L)     a record: head, then L doubles
--   i64 (N)       an image, checked as far as that goes without decoding; its size in bytes
-- y must not be used before job:wait().
function M.start(plan)
  local n, y = #plan.paths, plan.into
  local rows = plan.rows and ffi.new('int64_t[?]', n, plan.rows)
  local paths, head = ffi.new('const char *[?]', n, plan.paths), plan.head or ''
  return new_job(lib.cpu.ty_loader_start(y.c, paths, rows, n, head, #head, plan.threads), n, y)
end

-- The same for rows of memory, which may be a mapped file: y[i] = x[index[i]], index an int64 tensor.
function M.gather(y, x, index, threads)
  return new_job(lib.cpu.ty_loader_gather(y.c, x.c, index.c, threads), index:numel(), y, x)
end

-- Waits for all files; Ctrl-C at the prompt stops the job. Returns the errors: file's number in the plan (from 1) -> sentence.
function Job:finish()
  if self.errors then return self.errors end
  if not self.handle then lib.raise('loader: this job was stopped before it had finished') end
  while lib.cpu.ty_loader_wait(self.handle, PATIENCE) == 0 do
    local ok, message = pcall(lib.check_interrupt)
    if not ok then
      self:stop()
      error(message, 0)
    end
  end
  self.errors = {}
  for i = 1, self.count do
    local message = lib.cpu.ty_loader_error(self.handle, i - 1)
    if message ~= nil then self.errors[i] = ffi.string(message) end
  end
  self:stop()
  return self.errors
end

-- Waits for all files and returns y; raises the error of the first bad one. A bad file is the person's, so its error has no position.
function Job:wait()
  local errors = self:finish()
  for i = 1, self.count do
    if errors[i] then error(errors[i], 0) end
  end
  return self.into
end

-- Ends the threads, each after the file that it is at.
function Job:stop()
  if self.handle then
    stop(ffi.gc(self.handle, nil))
    self.handle = nil
  end
end

return M
