-- A run's directory: everything that says what was run and what came of it, as plain files. Never shared, never overwritten.
--   config.yml       the resolved settings; a directory without it is no run
--   arguments.txt, versions.json, scripts/    see tycho.train.provenance
--   metrics.jsonl    one object for every row of metrics; metrics.csv: the same as a table
--   events.out.tfevents.*    the same for TensorBoard
--   train.log        what was said, with the time of day; nothing else here but the event file depends on a clock
--   status.json      how the training ended: finished, stopped or failed
--   lock             held by the process that trains it
local lfs = require 'lfs'
local csv = require 'tycho.io.csv'
local file = require 'tycho.io.file'
local generator = require 'tycho.generator'
local json = require 'tycho.io.json'
local lib = require 'tycho.lib'
local nearest = require 'tycho.nearest'
local process = require 'tycho.sweep.process'
local read = require 'tycho.runs.read'
local tfevents = require 'tycho.io.tfevents'
local provenance = require 'tycho.train.provenance'

local Run = {}
Run.__index = Run
local M = {}

local PATIENCE = 0.5 -- seconds: who asks whether a run is in use has its lock for a moment

-- The lock of the run at path. Raises when another process has it.
local function lock(path)
  local deadline = lib.cpu.ty_now() + PATIENCE
  repeat
    local held = file.lock(path .. '/lock')
    if held then return held end
    process.sleep(0.01)
  until lib.cpu.ty_now() > deadline
  error(('%s is in use: another process trains this run; wait for it, or stop it'):format(path), 0)
end

local function remove_tree(path)
  if lfs.symlinkattributes(path, 'mode') == 'directory' then
    for name in lfs.dir(path) do
      if name ~= '.' and name ~= '..' then remove_tree(path .. '/' .. name) end
    end
  end
  os.remove(path)
end

-- Removes the run at path with all in it. Raises when another process has it.
function M.remove(path)
  local held = lock(path)
  remove_tree(path)
  held:close()
end

-- NaN and infinities have no JSON numbers; they are written as strings.
local function encodable(value)
  if type(value) == 'number' and value ~= value then return 'nan' end
  if value == math.huge or value == -math.huge then return tostring(value) end
  if type(value) ~= 'table' then return value end
  local out = {}
  for k, v in pairs(value) do out[k] = encodable(v) end
  return setmetatable(out, getmetatable(value))
end
function M.encode(value, indent) return json.encode(encodable(value), { indent = indent }) end

-- ---- making and finding ----

-- Makes the directory; it did not exist before.
local function make_new(out, name)
  local draws = generator(os.time() % 2^31, math.floor(os.clock() * 1e6) % 2^31)
  for _ = 1, 100 do
    local path = ('%s/%s_%s_%04x'):format(out, os.date('%Y%m%d_%H%M%S'), name, draws:integer(65536))
    if lfs.mkdir(path) then return path end
    if not lfs.attributes(path) then error(('cannot make the run directory %s: is %s writable?'):format(path, out), 0) end
  end
  error('cannot find a free run directory under ' .. out, 0)
end

-- Nothing is in path, or only a lock, and what was left of a file that was being written.
local function is_empty(path)
  if lfs.attributes(path, 'mode') ~= 'directory' then return false end
  for name in lfs.dir(path) do
    if name ~= '.' and name ~= '..' and name ~= 'lock' and not name:match('%.tmp$') then return false end
  end
  return true
end

-- Raises if something is at path, where a new run is to go.
function M.check_new(path)
  if lfs.attributes(path) and not is_empty(path) then
    error(('run_dir=%s: this exists already, and a run never writes over another; resume=%s goes on with that run'):format(path, path), 0)
  end
end

local function make_named(path)
  M.check_new(path)
  file.make_folders(path)
  return path
end

-- A new directory: OUT/<date>_<time>_<name>_<4 hex digits>, or info.path. info.config: text of the resolved settings; info.made_with [opt]: see
-- tycho.train.provenance. This process has it (Run:take) until Run:release. After a failure nothing of it stays.
function M.create(out, name, info)
  local path
  if info.path then
    path = make_named((info.path:gsub('(.)/+$', '%1')))
  else
    file.make_folders(out)
    path = make_new(out, name)
  end
  local self = setmetatable({ path = path, rows = {}, made_with = info.made_with, lock = lock(path) }, Run)
  local is_ours = is_empty(path) -- not where another process has made a run of it since
  local ok, message = pcall(function()
    M.check_new(path)
    self:write('config.yml', info.config)
    self:save_provenance()
  end)
  if ok then return self end
  if is_ours then remove_tree(path) end
  self:release()
  error(message, 0)
end

function Run:save_provenance()
  provenance.save(function(name, text) self:write(name, text) end, self.made_with)
end

local function is_run(path) return lfs.attributes(path .. '/config.yml', 'mode') == 'file' end

-- Raises what is wrong with path if it is no run's directory. key: the setting that names it.
function M.check(path, key)
  if is_run(path) then return end
  local folder, base = path:match('^(.*)/([^/]+)/*$')
  folder, base = folder or '.', base or path
  local names = {}
  if lfs.attributes(folder, 'mode') == 'directory' then
    for name in lfs.dir(folder) do
      if is_run(folder .. '/' .. name) then names[#names + 1] = name end
    end
  end
  local near = nearest(base, names)
  error(('%s=%s: %s; expected the directory of a run, with config.yml in it%s'):format(key, path,
    lfs.attributes(path) and 'this is no run' or 'there is no such directory', near and ('; did you mean %s/%s?'):format(folder, near) or ''), 0)
end

-- The directory of an earlier run. made_with [opt]: as M.create has it, of what goes on with it.
function M.open(path, made_with)
  M.check(path, 'run')
  return setmetatable({ path = path, rows = {}, made_with = made_with }, Run)
end

-- The run of this name under out that trained last, or nil.
function M.newest(out, name)
  local found, latest
  if lfs.attributes(out, 'mode') ~= 'directory' then return nil end
  for entry in lfs.dir(out) do
    local path = out .. '/' .. entry
    if entry:match('^%d+_%d+_(.*)_%x+$') == name and is_run(path) then
      local time = read.trained_at(path)
      if not found or time > latest or time == latest and path > found then found, latest = path, time end
    end
  end
  return found
end

-- ---- one process at a time ----

-- Takes the run for this process, and clears away what a killed one left half-written. The lock ends with the process, however it ends.
function Run:take()
  self.lock = lock(self.path)
  file.remove_leftovers(self.path)
  if not provenance.is_complete(self.path) then self:save_provenance() end
end

function Run:release()
  if self.lock then
    self.lock:close()
    self.lock = nil
  end
end

-- ---- writing ----

-- Names of all columns of rows: epoch and iteration first, the others sorted.
local function columns_of(rows)
  local names, seen = { 'epoch', 'iteration' }, { epoch = true, iteration = true }
  for _, row in ipairs(rows) do
    for name in pairs(row) do
      if not seen[name] then
        seen[name] = true
        names[#names + 1] = name
      end
    end
  end
  table.sort(names, function(a, b)
    if a == b then return false end
    if a == 'epoch' or b == 'epoch' then return a == 'epoch' end
    if a == 'iteration' or b == 'iteration' then return a == 'iteration' end
    return a < b
  end)
  return names
end

local function line_of(row) return json.encode(encodable(row), { keyorder = columns_of { row } }) .. '\n' end

-- Writes metrics.csv anew.
local function write_table(self)
  self.columns, self.is_column = columns_of(self.rows), {}
  for _, name in ipairs(self.columns) do self.is_column[name] = true end
  self:write('metrics.csv', csv.encode(self.columns, self.rows))
end

-- Whether the table has columns for all of a row.
local function fits(self, row)
  for name in pairs(row) do
    if not (self.is_column and self.is_column[name]) then return false end
  end
  return true
end

-- Adds a row (name -> number) to metrics.jsonl, metrics.csv and the event file.
function Run:log(row)
  table.insert(self.rows, row)
  file.append(self.path .. '/metrics.jsonl', line_of(row))
  tfevents.add(self.path, row.iteration or row.epoch or #self.rows, row)
  if fits(self, row) then file.append(self.path .. '/metrics.csv', csv.line(self.columns, row)) else write_table(self) end
end

-- Goes back to the rows for which keep(row) is true: what a resumed run will write again goes, and so do half a line of a killed one and whatever is
-- no row with a number as its iteration.
function Run:trim(keep)
  self.rows = {}
  local path, lines = self.path .. '/metrics.jsonl', {}
  if not lfs.attributes(path) then return end
  for line in (file.read(path) or ''):gmatch '[^\n]+' do
    local ok, row = pcall(json.decode, line)
    if ok and type(row) == 'table' and type(row.iteration) == 'number' and keep(row) then
      table.insert(self.rows, row)
      lines[#lines + 1] = line .. '\n'
    end
  end
  self:write('metrics.jsonl', table.concat(lines))
  write_table(self)
  local last = self.rows[#self.rows]
  tfevents.restart(self.path, last and last.iteration + 1 or 0)
end

-- Adds a line to train.log. A log that cannot be written stops nothing.
function Run:say(text)
  local log = io.open(self.path .. '/train.log', 'a')
  if log then
    log:write(os.date('%Y-%m-%d %H:%M:%S'), '  ', text, '\n')
    log:close()
  end
end

-- Writes NAME, a path below the directory, whole or not at all; returns its path.
function Run:write(name, text)
  local path = self.path .. '/' .. name
  file.make_folders(path:match('^(.*)/[^/]*$'))
  file.write(path, text)
  return path
end

return M
