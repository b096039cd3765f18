-- What a run's directory says (tycho.train.run writes it). A damaged directory is read as far as it goes; what is wrong with it is a sentence in
-- `problem`, never an error.
local lfs = require 'lfs'
local file = require 'tycho.io.file'
local json = require 'tycho.io.json'
local node = require 'tycho.config.node'
local is_number = require('tycho.plot.layout').is_number
local yaml = require 'tycho.config.yaml'

local M = {}

local read = file.read

-- The settings by dotted key, as texts; nil and a sentence when there are none.
function M.settings(path)
  if not lfs.attributes(path .. '/config.yml') then return nil, 'there is no config.yml' end
  local ok, tree = pcall(yaml.read, path .. '/config.yml', 'config.yml')
  if not ok then return nil, tree end
  local settings = {}
  local function collect(map, prefix)
    for _, name in ipairs(map.keys) do
      local key, item = prefix .. name, map.items[name]
      if item.kind == 'map' then
        collect(item, key .. '.')
      else
        settings[key] = item.kind == 'string' and item.value or node.inline(item)
      end
    end
  end
  collect(tree, '')
  return settings
end

local words = { nan = 0 / 0, inf = math.huge, ['-inf'] = -math.huge }

-- The lines of a text file that are not empty; none where it cannot be read.
local function lines_of(path)
  local lines = {}
  for line in (read(path) or ''):gmatch('[^\r\n]+') do lines[#lines + 1] = line end
  return lines
end

-- The row that a line says, or nil.
local function row_of(line)
  local ok, row = pcall(json.decode, line)
  if not ok or type(row) ~= 'table' or row == json.null or row[1] ~= nil then return nil end
  for key, value in pairs(row) do row[key] = words[value] or value end
  return row
end

local function complaint_of(lines, bad, first_bad)
  return bad > 0 and ('metrics.jsonl: %d of %d lines cannot be read, the first is line %d'):format(bad, #lines, first_bad) or nil
end

-- The rows of metrics.jsonl, and a sentence when some of its lines are none.
function M.metrics(path)
  local lines, rows, first_bad = lines_of(path .. '/metrics.jsonl'), {}, nil
  for i, line in ipairs(lines) do
    local row = row_of(line)
    if row then rows[#rows + 1] = row else first_bad = first_bad or i end
  end
  return rows, complaint_of(lines, #lines - #rows, first_bad)
end

-- The last value of each metric: some are logged only every few epochs.
function M.last(rows)
  local last = {}
  for _, row in ipairs(rows) do
    for key, value in pairs(row) do
      if type(value) == 'number' then last[key] = value end
    end
  end
  return last
end

-- How many metrics a run has, by the head of its table; nil when that cannot be told.
local function count_metrics(path)
  local handle = io.open(path .. '/metrics.csv', 'rb')
  local head = handle and handle:read '*l'
  if handle then handle:close() end
  return head and not head:find('"', 1, true) and select(2, head:gsub(',', '')) + 1 or nil
end

-- M.last of the rows of metrics.jsonl, their number, and a sentence when some of the lines are none. Rows are read from the last one on until there
-- is nothing more to find; those before are only counted.
function M.summary(path)
  local lines, last, missing = lines_of(path .. '/metrics.jsonl'), {}, count_metrics(path) or math.huge
  local bad, first_bad = 0, nil
  for i = #lines, 1, -1 do
    local row = missing > 0 and row_of(lines[i])
    for key, value in pairs(row or {}) do
      if type(value) == 'number' and last[key] == nil then last[key], missing = value, missing - 1 end
    end
    if not row and (missing > 0 or not lines[i]:match '^{.*}$') then bad, first_bad = bad + 1, i end
  end
  return last, #lines - bad, complaint_of(lines, bad, first_bad)
end

-- What to plot of a metric over the epochs: {x, y, is_finite = whether any value can be drawn}; nil for one without values.
function M.series(rows, name)
  local x, y, is_finite = {}, {}, false
  for i, row in ipairs(rows) do
    if type(row[name]) == 'number' then
      x[#x + 1], y[#y + 1] = is_number(row.epoch) and row.epoch or i, row[name]
      is_finite = is_finite or is_number(row[name])
    end
  end
  return #x > 0 and { x = x, y = y, is_finite = is_finite } or nil
end

-- The last lines of a text file.
function M.tail(path, count)
  local lines = lines_of(path)
  return { unpack(lines, math.max(1, #lines - count + 1)) }
end

-- When it last trained, in seconds as the system counts them: what was said last, or its settings are that old. 0 where there is neither.
function M.trained_at(path)
  local said = lfs.attributes(path .. '/train.log', 'modification') or 0
  return math.max(said, lfs.attributes(path .. '/config.yml', 'modification') or 0)
end

-- Whether a process trains it now.
function M.is_in_use(path)
  if not lfs.attributes(path .. '/lock') then return false end
  local ok, lock = pcall(file.lock, path .. '/lock')
  if ok and lock then lock:close() end
  return ok and lock == nil
end

-- 'finished', 'stopped' (by Ctrl-C or SIGTERM), 'failed' or 'killed' as the files say; a run in use is 'running'.
local function status_of(path)
  local text = read(path .. '/status.json')
  if text then
    local ok, status = pcall(json.decode, text)
    if ok and type(status) == 'table' and type(status.status) == 'string' then
      return status.status, type(status.message) == 'string' and status.message or nil
    end
    return 'killed', nil, 'status.json cannot be read'
  end
  return lfs.attributes(path .. '/results.json') and 'finished' or 'killed'
end

-- Reads the directory at path: {path, name, status, message = of an error that ended it, problem = sentence or nil, settings, metrics (last values),
-- epochs = number of rows, tags = list}. in_use is not asked here; see M.is_in_use.
function M.run(path)
  local run = { path = path, name = path:match('([^/]+)/*$'), metrics = {}, epochs = 0, tags = {} }
  local problem, complaint
  run.settings, problem = M.settings(path)
  run.metrics, run.epochs, complaint = M.summary(path)
  problem = problem or complaint
  run.status, run.message, complaint = status_of(path)
  problem = problem or complaint
  for tag in (read(path .. '/tags') or ''):gmatch('[^\n]+') do run.tags[#run.tags + 1] = tag end
  run.problem = problem
  return run
end

return M
