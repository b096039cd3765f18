-- The runs below a folder, from their files alone. What has been read is kept in an index file beside them, so that a thousand runs are listed at
-- once; a run whose files have changed is read again, and an index that is damaged or cannot be written costs time only.
--
--   for _, run in ipairs(require('tycho.runs').list 'runs') do print(run.name, run.status, run.metrics.loss) end
local lfs = require 'lfs'
local buffer = require 'string.buffer'
local file = require 'tycho.io.file'
local hash = require 'tycho.hash'
local nearest = require 'tycho.nearest'
local read = require 'tycho.runs.read'

local M = { read = read.run, metrics = read.metrics, settings = read.settings }

local INDEX, FORMAT = '.runs_index', 1
local DEPTH = 4 -- folders below the first one that are searched
local watched = { 'config.yml', 'metrics.jsonl', 'status.json', 'results.json', 'tags' }

-- ---- finding ----

-- Changes when a run's files change.
local function stamp_of(path)
  local words = {}
  for i, name in ipairs(watched) do
    local at = lfs.attributes(path .. '/' .. name)
    words[i] = at and ('%d.%d'):format(at.modification, at.size) or '-'
  end
  return table.concat(words, ' ')
end

-- Whether a folder without config.yml once was a run, or was to become one.
local function looks_like_run(path, name)
  if name:match('^%d%d%d%d%d%d%d%d_%d%d%d%d%d%d_.*_%x%x%x%x$') then return true end
  for _, left in ipairs { 'metrics.jsonl', 'checkpoint.safetensors', 'train.log', 'arguments.txt' } do
    if lfs.attributes(path .. '/' .. left) then return true end
  end
  return false
end

-- Calls fn(path, name relative to the first folder, problem or nil) for every run, in order.
local function walk(folder, prefix, depth, fn)
  local ok, iterate, state = pcall(lfs.dir, folder)
  if not ok then return fn(folder, prefix:gsub('/$', ''), 'the folder cannot be read') end
  local names = {}
  for name in iterate, state do
    if name:sub(1, 1) ~= '.' then names[#names + 1] = name end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local path = folder .. '/' .. name
    if lfs.attributes(path, 'mode') == 'directory' then
      if lfs.attributes(path .. '/config.yml') or looks_like_run(path, name) then
        fn(path, prefix .. name)
      elseif depth > 1 then
        walk(path, prefix .. name .. '/', depth - 1, fn)
      end
    end
  end
end

local function load_index(folder)
  local sum, text = (file.read(folder .. '/' .. INDEX) or ''):match '^(%x+)\n(.*)$'
  if not text or hash(text) ~= sum then return {} end
  local ok, index = pcall(buffer.decode, text)
  return ok and type(index) == 'table' and index.format == FORMAT and type(index.runs) == 'table' and index.runs or {}
end

-- All runs below folder, sorted by name: as tycho.runs.read.run gives them, the name being the path below folder, and status 'running' for one that
-- a process trains now.
function M.list(folder)
  if lfs.attributes(folder, 'mode') ~= 'directory' then error(('there is no folder %s; --out=FOLDER names another'):format(folder), 0) end
  local known, index, list, changed = load_index(folder), {}, {}, false
  walk(folder, '', DEPTH, function(path, name, problem)
    local stamp = stamp_of(path)
    local entry = known[name]
    if problem then
      entry = { stamp = stamp, run = { metrics = {}, tags = {}, epochs = 0, status = 'killed', problem = problem } }
    elseif not entry or entry.stamp ~= stamp then
      entry, changed = { stamp = stamp, run = read.run(path) }, true
    end
    index[name] = entry
    local run = entry.run
    run.path, run.name = path, name
    list[#list + 1] = run
  end)
  for name in pairs(known) do changed = changed or not index[name] end
  if changed then
    local text = buffer.encode { format = FORMAT, runs = index }
    pcall(file.write, folder .. '/' .. INDEX, hash(text) .. '\n' .. text)
  end
  for _, run in ipairs(list) do
    if read.is_in_use(run.path) then run.status = 'running' end
  end
  return list
end

-- Whether a word is the path of a run.
function M.is_path(word) return lfs.attributes(word .. '/config.yml', 'mode') == 'file' end

-- The run that a word means: a name, a path, also of a run outside of the list, the only name that holds the word, or 'last', which trained last.
function M.find(list, word)
  local names, holding = {}, {}
  for i, run in ipairs(list) do
    names[i] = run.name
    if run.name == word or run.path == word:gsub('(.)/+$', '%1') then return run end
    if run.name:find(word, 1, true) then holding[#holding + 1] = run end
  end
  if M.is_path(word) then
    local run = read.run(word)
    run.path, run.name = word:gsub('(.)/+$', '%1'), word:match('([^/]*)/*$')
    if read.is_in_use(word) then run.status = 'running' end
    return run
  end
  if word == 'last' and #list > 0 then
    local newest, latest = nil, -1
    for _, run in ipairs(list) do
      local time = read.trained_at(run.path)
      if time >= latest then newest, latest = run, time end
    end
    return newest
  end
  if #holding == 1 then return holding[1] end
  if #holding > 1 then
    error(("'%s' may be %d runs, such as %s and %s"):format(word, #holding, holding[1].name, holding[2].name), 0)
  end
  local near = nearest(word, names)
  error(("no run '%s'; %s"):format(word, near and ("did you mean '%s'?"):format(near) or ('./tycho runs ls lists the %d there are'):format(#list)), 0)
end

-- ---- choosing ----

local compare = {
  ['='] = function(a, b) return a == b end, ['!='] = function(a, b) return a ~= b end,
  ['<'] = function(a, b) return a < b end, ['<='] = function(a, b) return a <= b end,
  ['>'] = function(a, b) return a > b end, ['>='] = function(a, b) return a >= b end,
}

-- A metric or setting of a run under its name, or status.
function M.value(run, key)
  if run.metrics[key] ~= nil then return run.metrics[key] end
  if run.settings and run.settings[key] ~= nil then return run.settings[key] end
  return key == 'status' and run.status or nil
end

-- Raises the sentence about a key that no run has.
function M.check_key(list, key)
  local names, seen = { 'status' }, {}
  for _, run in ipairs(list) do
    if M.value(run, key) ~= nil then return end
    for _, values in ipairs { run.metrics, run.settings or {} } do
      for name in pairs(values) do
        if not seen[name] then names[#names + 1] = name end
        seen[name] = true
      end
    end
  end
  if #list == 0 then return end
  table.sort(names)
  local near = nearest(key, names)
  error(("no run has a metric or setting '%s'%s"):format(key, near and ("; did you mean '%s'?"):format(near) or ''), 0)
end

-- The runs for which all conditions hold: texts such as status=finished, loss<2, mask_prob!=0.5.
function M.where(list, conditions)
  for _, text in ipairs(conditions) do
    local key, operator, wanted = text:match('^([%w_./+-]+)([<>!=]=?)(.*)$')
    if not compare[operator or ''] then error(("'%s' is no condition: write KEY=VALUE, or != < <= > >= (quoted, for the shell)"):format(text), 0) end
    M.check_key(list, key)
    local kept = {}
    for _, run in ipairs(list) do
      local value = M.value(run, key)
      local a, b = tonumber(value), tonumber(wanted)
      if not (a and b) then a, b = tostring(value), wanted end
      if value ~= nil and compare[operator](a, b) then kept[#kept + 1] = run end
    end
    list = kept
  end
  return list
end

-- Keys of the settings in which runs differ, sorted, but for those that say where and how often a run was made.
local places = { seed = true, run_dir = true, out = true, name = true, resume = true, threads = true, workers = true, data_dir = true }
function M.varied(list)
  local first, keys, seen = nil, {}, {}
  for _, run in ipairs(list) do
    local settings = run.settings or {}
    first = first or settings
    for _, pair in ipairs { { first, settings }, { settings, first } } do
      for key, value in pairs(pair[1]) do
        if pair[2][key] ~= value and not seen[key] and not places[key] then
          seen[key] = true
          keys[#keys + 1] = key
        end
      end
    end
  end
  table.sort(keys)
  return keys
end

return M
