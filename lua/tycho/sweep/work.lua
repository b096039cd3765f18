-- The jobs of a sweep at work: started as places get free, watched, ended in good order. A sweep here is {script, folder, text = hash of the
-- script's, jobs, metrics = names that are said of a finished job, count = jobs at a time, threads = of each, fail_fast, pending = how many are to
-- be done, ended}.
local lfs = require 'lfs'
local json = require 'tycho.io.json'
local lib = require 'tycho.lib'
local process = require 'tycho.sweep.process'
local read = require 'tycho.runs.read'

local M = {}

local POLL = 0.05 -- seconds
local LINES = 10 -- of the log of a job that failed

function M.say(...) io.stderr:write((...):format(select(2, ...)), '\n') end
local say = M.say

-- Arguments of a job's process: it makes its run's directory, or goes on with it.
function M.arguments_of(self, job)
  local path = self.folder .. '/' .. job.name
  local arguments = { unpack(job.arguments) }
  arguments[#arguments + 1] = 'run_dir=' .. path
  if lfs.attributes(path .. '/config.yml') then arguments[#arguments + 1] = 'resume=' .. path end
  return arguments
end

function M.remember(self)
  local jobs = {}
  for _, job in ipairs(self.jobs) do jobs[job.name] = { arguments = job.arguments, status = job.status or 'waiting' } end
  json.save(self.folder .. '/jobs.json', { script = self.script, text = self.text, jobs = jobs })
end

local function log_of(self, job) return ('%s/%s.log'):format(self.folder, job.name) end

function M.metrics_of(self, job) return (read.summary(self.folder .. '/' .. job.name)) end

local function results_text(self, job)
  local words, metrics = {}, M.metrics_of(self, job)
  for _, name in ipairs(self.metrics) do
    if metrics[name] then words[#words + 1] = ('%s %.4g'):format(name, metrics[name]) end
  end
  return table.concat(words, '  ')
end

local function start(self, job)
  local command = { lib.root .. '/tycho', self.script, unpack(M.arguments_of(self, job)) }
  job.pid = process.start(command, log_of(self, job), { OMP_NUM_THREADS = self.threads })
  job.started, job.status = lib.cpu.ty_now(), 'running'
end

-- Notes how a job ended.
local function settle(self, job, ending)
  local seconds = lib.cpu.ty_now() - job.started
  job.pid = nil
  self.ended = self.ended + 1
  local head = ('[%d/%d] %s'):format(self.ended, self.pending, job.text)
  if ending == 0 then
    job.status = 'finished'
    say('%s: finished in %.0f s  %s', head, seconds, results_text(self, job))
  elseif self.stopping then
    job.status = 'stopped'
    say('%s: stopped after %.0f s', head, seconds)
  else
    job.status, self.failed = 'failed', true
    say('%s: failed after %.0f s (%s); the end of %s:', head, seconds, type(ending) == 'number' and 'exit status ' .. ending or ending,
      log_of(self, job))
    for _, line in ipairs(read.tail(log_of(self, job), LINES)) do say('    %s', line) end
  end
  M.remember(self)
end

-- Runs what is waiting; Ctrl-C and SIGTERM end the running jobs in good order and start no more.
function M.run(self, waiting)
  local running = {}
  lib.on_interrupt('flag')
  while #waiting > 0 or #running > 0 do
    if lib.interrupted() and not self.stopping then
      self.stopping = true
      say('stopping: %d running jobs save their state', #running)
      for _, job in ipairs(running) do process.terminate(job.pid) end
    end
    if self.stopping or self.fail_fast and self.failed then waiting = {} end
    while #waiting > 0 and #running < self.count do
      local job = table.remove(waiting, 1)
      start(self, job)
      running[#running + 1] = job
    end
    process.sleep(POLL)
    for i = #running, 1, -1 do
      local ending = process.ended(running[i].pid)
      if ending then settle(self, table.remove(running, i), ending) end
    end
  end
  lib.on_interrupt(nil)
end

return M
