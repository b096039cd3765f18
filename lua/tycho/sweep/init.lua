-- Many runs of a script with different settings: jobs side by side, as many as the cores carry, and one table of what came of them.
--
--   ./tycho -m experiments/main.lua temperature=0.1,0.5 block_size=16,32 seeds=3 data_dir=DIR          (or: ./tycho experiments/main.lua -m ...)
--
-- A setting has several values (values.lua); every combination is a job. zip=a,b lets two settings move together, sample=N draws N points,
-- seeds=N runs each point with N seeds, from seed= on. jobs=N: at a time (default: one for each core; a job has its share of the cores as threads).
-- sweep_dir=DIR: where the sweep lives; given again, finished jobs are not run again and interrupted ones go on. metrics=a,b: columns of the table.
-- --dry-run shows the jobs, --fail-fast starts no more after the first that fails. The same from Lua:
--
--   local result = tycho.sweep.run { script = 'experiments/main.lua', vary = { temperature = { 0.1, 0.5 } }, seeds = 3, fixed = { data_dir = DIR } }
--   print(result.table:text())
--
-- Its folder: jobs.json (arguments and outcome of each job), a run's directory and NAME.log for each job, jobs.csv, and table.txt, .csv, .md, .tex.
local check_options = require 'tycho.options'
local csv = require 'tycho.io.csv'
local file = require 'tycho.io.file'
local hash = require 'tycho.hash'
local json = require 'tycho.io.json'
local lib = require 'tycho.lib'
local node = require 'tycho.config.node'
local plans = require 'tycho.sweep.plan'
local tables = require 'tycho.table'
local work = require 'tycho.sweep.work'

local M = { is_asked = plans.is_asked }

local say = work.say

-- ---- what is to be done ----

-- The folder: the one asked for, or a new one below out.
local function folder_of(plan)
  if plan.sweep_dir then return (plan.sweep_dir:gsub('(.)/+$', '%1')) end
  local out = 'runs'
  for _, argument in ipairs(plan.fixed) do out = argument:match('^out=(.+)$') or out end
  return ('%s/%s_%s_sweep'):format(out, os.date('%Y%m%d_%H%M%S'), plan.script:match('([^/]*)$'):gsub('%.lua$', ''))
end

local function same(a, b)
  if not a or #a ~= #b then return false end
  for i = 1, #a do
    if a[i] ~= b[i] then return false end
  end
  return true
end

-- Takes over what jobs.json says of jobs with the same arguments.
local function recall(self)
  local text = file.read(self.folder .. '/jobs.json')
  if not text then return end
  local ok, known = pcall(json.decode, text)
  if not (ok and type(known) == 'table' and type(known.jobs) == 'table') then
    error(('%s/jobs.json is damaged; remove it: the jobs are taken up again, and those that had finished end at once'):format(self.folder), 0)
  end
  if known.script ~= self.script then
    error(('sweep_dir=%s holds a sweep of %s; choose another folder for one of %s'):format(self.folder, tostring(known.script), self.script), 0)
  end
  local changed, others
  for _, job in ipairs(self.jobs) do
    local before = known.jobs[job.name]
    if before and before.status == 'finished' and same(before.arguments, job.arguments) then
      job.status = 'finished'
      if known.text ~= self.text then changed = true end
    elseif before and before.status == 'finished' then
      others = others or table.concat(before.arguments or {}, ' ')
    end
  end
  if others then
    say('jobs in %s had finished with other settings (%s) and go on with these; choose another sweep_dir to run them anew', self.folder, others)
  end
  if changed then say('%s has another text than when its finished jobs ran; remove %s to run them anew', self.script, self.folder) end
end

-- Raises what is wrong with the settings of any job. check(arguments) [opt] raises the sentence about one.
local function refuse_bad(self, check)
  for _, job in ipairs(check and self.jobs or {}) do
    if job.status ~= 'finished' then
      local ok, message = pcall(check, work.arguments_of(self, job))
      if not ok then
        error(('%s%s; no job was started'):format(#self.jobs > 1 and job.text ~= '' and ('job %s: '):format(job.text) or '', tostring(message)), 0)
      end
    end
  end
end

-- How many jobs at a time, and threads of each. Jobs that set threads= themselves are fewer.
local function share_cores(plan, jobs)
  local cores, asked = lib.cpu.ty_threads(), 0
  for _, argument in ipairs(plan.fixed) do asked = tonumber(argument:match('^threads=(%d+)$')) or asked end
  local count = math.max(1, math.min(plan.jobs or math.floor(cores / math.max(1, asked)), jobs))
  return count, math.max(1, math.floor(cores / count))
end

-- ---- what came of them ----

-- The axes' keys in order, the seed last and apart.
local function keys_of(jobs)
  local list, seen = {}, { seed = true }
  for _, job in ipairs(jobs) do
    for _, setting in ipairs(job.point) do
      if not seen[setting.key] then list[#list + 1] = setting.key end
      seen[setting.key] = true
    end
  end
  return list
end

local function collect(self)
  local rows, names, seen = {}, {}, {}
  for i, job in ipairs(self.jobs) do
    local row = job.status == 'finished' and work.metrics_of(self, job) or {}
    for name in pairs(row) do
      if not seen[name] then names[#names + 1] = name end
      seen[name] = true
    end
    row.job, row.status = job.name, job.status or 'waiting'
    for _, setting in ipairs(job.point) do row[setting.key] = setting.value end
    rows[i] = row
  end
  table.sort(names)
  return rows, names
end

-- Columns of the table when nobody said: metrics whose names have no parts, but for counters.
local function default_metrics(names)
  local list = {}
  for _, name in ipairs(names) do
    if not name:find('/', 1, true) and name ~= 'epoch' and name ~= 'iteration' and name ~= 'lr' then list[#list + 1] = name end
  end
  return list
end

local function summarise(self)
  local rows, names = collect(self)
  local keys = keys_of(self.jobs)
  local finished = {}
  for _, row in ipairs(rows) do
    if row.status == 'finished' then finished[#finished + 1] = row end
  end
  local shown = #self.metrics > 0 and self.metrics or default_metrics(names)
  for _, metric in ipairs(#finished > 0 and self.metrics or {}) do
    local is_known = false
    for _, name in ipairs(names) do is_known = is_known or name == metric end
    if not is_known then say("no run has the metric '%s'; there are %s", metric, table.concat(names, ', ')) end
  end
  self.rows, self.table = rows, tables.grouped(finished, keys, shown, 'runs')
  self.table:write(self.folder .. '/table')
  local columns = { 'job', 'status', unpack(keys) }
  if self.jobs[1].point[1] and self.jobs[1].point[#self.jobs[1].point].key == 'seed' then columns[#columns + 1] = 'seed' end
  for _, name in ipairs(names) do columns[#columns + 1] = name end
  file.write(self.folder .. '/jobs.csv', csv.encode(columns, rows))
end

local function show_jobs(self)
  for i, job in ipairs(self.jobs) do
    print(('%4d  %-9s %s'):format(i, job.status or 'waiting', table.concat({ self.script, unpack(job.arguments) }, ' ')))
  end
  print(('%d jobs, %d at a time with %d threads each, in %s; nothing was started'):format(#self.jobs, self.count, self.threads, self.folder))
end

local function count(jobs, status)
  local n = 0
  for _, job in ipairs(jobs) do n = n + ((job.status or 'waiting') == status and 1 or 0) end
  return n
end

-- Runs a plan (tycho.sweep.plan.read, with script and check). Returns {jobs, rows (one for each job: its point, status and last metrics), table
-- (tycho.table, over seeds), folder, is_complete}.
local function execute(plan)
  local self = { script = plan.script, folder = folder_of(plan), jobs = plans.jobs(plan), metrics = plan.metrics or {},
    fail_fast = plan.fail_fast, ended = 0, text = hash(file.read(plan.script) or '') }
  recall(self)
  self.pending = #self.jobs - count(self.jobs, 'finished')
  -- Before the check, which sets this process's threads as the jobs' settings say. By all jobs: with other numbers of threads, what is left to do
  -- would get other numbers.
  self.count, self.threads = share_cores(plan, #self.jobs)
  refuse_bad(self, plan.check)
  if plan.dry_run then
    show_jobs(self)
    return self
  end
  file.make_folders(self.folder)
  local lock = file.lock(self.folder .. '/lock', true) -- its jobs save their state when it is killed
  if not lock then error(('%s is in use: another process runs this sweep'):format(self.folder), 0) end
  say('%s: %d jobs, %d of them finished before; %d at a time with %d threads each', self.folder, #self.jobs, #self.jobs - self.pending, self.count,
    self.threads)
  work.remember(self)
  local waiting = {}
  for _, job in ipairs(self.jobs) do
    if job.status ~= 'finished' then waiting[#waiting + 1] = job end
  end
  local ok, message = xpcall(work.run, lib.remember, self, waiting)
  if ok then summarise(self) end
  lock:close()
  if not ok then error(message, 0) end
  self.is_complete = count(self.jobs, 'finished') == #self.jobs
  return self
end

-- ---- from Lua ----

-- Settings as arguments: a list of texts, or key -> value.
local function arguments_from(settings)
  local list, names = { unpack(settings or {}) }, {}
  for key in pairs(settings or {}) do
    if type(key) == 'string' then names[#names + 1] = key end
  end
  table.sort(names)
  for _, key in ipairs(names) do list[#list + 1] = ('%s=%s'):format(key, node.inline(node.from(settings[key]))) end
  return list
end

local known = { script = true, vary = true, fixed = true, dry_run = true, fail_fast = true, check = true }
for key in pairs(plans.keys) do known[key] = true end

-- options: script (path), vary = {key = list of values or a text as on the command line}, fixed = {key = value} or list of arguments, seeds, jobs,
-- zip, sample, sweep_dir, metrics, dry_run, fail_fast; check = function(arguments) that raises what is wrong with a job's [opt].
function M.run(options)
  check_options('sweep', options, known)
  local plan = plans.read(arguments_from(options.fixed))
  for _, key in ipairs { 'script', 'dry_run', 'fail_fast', 'check' } do
    if options[key] ~= nil then plan[key] = options[key] end
  end
  if type(plan.script) ~= 'string' then error(("sweep: expected script = 'FILE.lua', got %s"):format(tostring(plan.script)), 0) end
  for key in pairs(plans.keys) do
    local value = options[key]
    if value ~= nil then plan[key] = plans.value(key, type(value) == 'table' and table.concat(value, ',') or tostring(value)) end
  end
  local names = {}
  for key in pairs(options.vary or {}) do names[#names + 1] = key end
  table.sort(names)
  for _, key in ipairs(names) do
    local values = options.vary[key]
    if type(values) == 'table' then
      local shown, texts = {}, {}
      for i, value in ipairs(values) do
        local text = node.inline(node.from(value))
        if type(value) == 'string' then
          shown[i], texts[i] = value, text
        else
          texts[i] = text:gsub(', ', ',')
          shown[i] = texts[i]
        end
      end
      if #texts == 0 then error(('sweep: vary.%s has no values'):format(key), 0) end
      plan.axes[#plan.axes + 1] = { key = key, values = shown, texts = texts }
    else
      table.insert(plan.axes, plans.read({ ('%s=%s'):format(key, values) }).axes[1])
    end
  end
  return execute(plan)
end

-- ---- from the command line ----

-- Where the arguments ask for a sweep, runs it with the script that was started and ends the process: 0 when every job has finished, 1 otherwise,
-- 130 after Ctrl-C. check(arguments) raises what is wrong with a job's settings.
function M.take(arguments, check)
  if not plans.is_asked(arguments) then return end
  local plan = plans.read(arguments)
  plan.script, plan.check = arg[0], check
  local result = execute(plan)
  if plan.dry_run then os.exit(0) end
  io.write('\n', result.table:text(), '\n')
  print(('table: %s/table.txt, .csv, .md, .tex; every run: jobs.csv'):format(result.folder))
  if not result.is_complete then
    print(('%d finished, %d failed, %d to do; the same command with sweep_dir=%s goes on'):format(count(result.jobs, 'finished'),
      count(result.jobs, 'failed'), #result.jobs - count(result.jobs, 'finished') - count(result.jobs, 'failed'), result.folder))
  end
  io.stdout:flush()
  os.exit(result.is_complete and 0 or result.stopping and 130 or 1)
end

return M
