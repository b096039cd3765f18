-- What ./tycho runs does, a function for each command: function(list of all runs, words, options).
local lfs = require 'lfs'
local file = require 'tycho.io.file'
local plot = require 'tycho.plot'
local read = require 'tycho.runs.read'
local report = require 'tycho.runs.report'
local run_directory = require 'tycho.train.run'
local runs = require 'tycho.runs'
local tables = require 'tycho.table'

local M = {}

local LINES = 8 -- of the log

local formats = { csv = 'csv', md = 'markdown', latex = 'latex' }

local function show(t, options)
  local method = 'text'
  for option, name in pairs(formats) do method = options[option] and name or method end
  io.write(t[method](t))
end

local function split(text)
  local list = {}
  for word in (text or ''):gmatch('[^,]+') do list[#list + 1] = word end
  return list
end

local function is_tagged(run, tag)
  for _, own in ipairs(run.tags) do
    if own == tag then return true end
  end
  return false
end

-- The runs that conditions and --tag leave.
local function chosen(list, words, options)
  list = runs.where(list, words)
  if not options.tag then return list end
  local kept = {}
  for _, run in ipairs(list) do
    if is_tagged(run, options.tag) then kept[#kept + 1] = run end
  end
  return kept
end

-- Metrics asked for with --metrics, or the loss.
local function metrics_of(list, options)
  local names = split(options.metrics or 'loss')
  for _, name in ipairs(options.metrics and names or {}) do runs.check_key(list, name) end
  return names
end

-- Whether a lower value of a metric is the better one.
local function is_lower_better(name, options)
  if options.min or options.max then return options.min ~= nil end
  return name:find('loss') ~= nil or name:find('mse') ~= nil or name:find('^ce_') ~= nil
end

-- Sorts by a metric or setting; runs without it, or with a NaN, come last.
local function sort(list, key, descending)
  runs.check_key(list, key)
  local function rank(run)
    local value = runs.value(run, key)
    return tonumber(value) or value
  end
  table.sort(list, function(a, b)
    local x, y = rank(a), rank(b)
    local x_bad, y_bad = x == nil or x ~= x, y == nil or y ~= y
    if x_bad or y_bad then return not x_bad and y_bad or x_bad == y_bad and a.name < b.name end
    if type(x) ~= type(y) then x, y = tostring(x), tostring(y) end
    if x == y then return a.name < b.name end
    if descending then return x > y end
    return x < y
  end)
end

local function list_table(list, metrics, keys)
  local columns, rows, has_problem = { 'run', 'status', 'done' }, {}, false -- done: epochs, of the setting with that name
  for _, name in ipairs(keys or {}) do columns[#columns + 1] = name end
  for _, name in ipairs(metrics) do columns[#columns + 1] = name end
  for i, run in ipairs(list) do
    rows[i] = { run = run.name, status = run.status, done = run.epochs, tags = table.concat(run.tags, ' '), problem = run.problem }
    for k = 4, #columns do rows[i][columns[k]] = runs.value(run, columns[k]) end
    has_problem = has_problem or run.problem
  end
  columns[#columns + 1] = 'tags'
  if has_problem then columns[#columns + 1] = 'problem' end
  return tables { columns = columns, rows = rows }
end

function M.ls(list, words, options)
  list = chosen(list, words, options)
  if #list == 0 then return print 'no runs' end
  if options.sort then sort(list, options.sort, options.max) end
  show(list_table(list, metrics_of(list, options), split(options.keys)), options)
end

function M.best(list, words, options)
  local metric = table.remove(words, 1)
  if not metric then error('runs best: name a metric, as in ./tycho runs best loss', 0) end
  list = chosen(list, words, options)
  sort(list, metric, not is_lower_better(metric, options))
  local first, count = {}, tonumber(options.count or 10)
  if not count or count < 1 or count % 1 ~= 0 then error(('--count must be a whole number >= 1, got %s'):format(options.count), 0) end
  for i = 1, math.min(count, #list) do
    if type(list[i].metrics[metric]) == 'number' then first[#first + 1] = list[i] end
  end
  local shown = { metric }
  for _, name in ipairs(options.metrics and metrics_of(list, options) or {}) do shown[#shown + 1] = name end
  show(list_table(first, shown, runs.varied(first)), options)
end

function M.show(list, words)
  local run = runs.find(list, words[1] or 'last')
  print(('%s: %s, %d epochs%s'):format(run.path, run.status, run.epochs, #run.tags > 0 and ', tags ' .. table.concat(run.tags, ' ') or ''))
  if run.message then print('ended by: ' .. run.message) end
  if run.problem then print('problem: ' .. run.problem) end
  local function section(title, values)
    local rows = {}
    for name, value in pairs(values) do rows[#rows + 1] = { name = name, value = value } end
    table.sort(rows, function(a, b) return a.name < b.name end)
    if #rows > 0 then io.write('\n', title, '\n', (tables({ columns = { 'name', 'value' }, rows = rows }):text():gsub('^[^\n]*\n', ''))) end
  end
  section('last metrics', run.metrics)
  section('settings', run.settings or {})
  local log = read.tail(run.path .. '/train.log', LINES)
  if #log > 0 then io.write('\nend of train.log\n', table.concat(log, '\n'), '\n') end
end

function M.diff(list, words, options)
  if #words ~= 2 then error('runs diff: name two runs', 0) end
  local a, b = runs.find(list, words[1]), runs.find(list, words[2])
  local function title(run) -- one that no other column has
    return (a.name == b.name or run.name == 'name' or run.name == 'change') and 'run ' .. run.path or run.name
  end
  local first, second = title(a), title(b)
  local function rows_of(x, y, with_change)
    local rows, seen = {}, {}
    for _, values in ipairs { x, y } do
      for name in pairs(values) do
        local p, q = x[name], y[name]
        if not seen[name] and p ~= q and not (p ~= p and q ~= q) then
          rows[#rows + 1] = { name = name, [first] = p, [second] = q, change = with_change and p and q and q - p or nil }
        end
        seen[name] = true
      end
    end
    table.sort(rows, function(m, n) return m.name < n.name end)
    return rows
  end
  if a == b then return print 'this is one and the same run' end
  local settings, metrics = rows_of(a.settings or {}, b.settings or {}), rows_of(a.metrics, b.metrics, true)
  if #settings + #metrics == 0 then return print 'same settings, same metrics' end
  if #settings > 0 then show(tables { columns = { 'name', first, second }, rows = settings }, options) end
  if #settings > 0 and #metrics > 0 then print() end
  if #metrics > 0 then show(tables { columns = { 'name', first, second, 'change' }, rows = metrics }, options) end
end

-- Mean and deviation over the runs that share the settings under --group (default: those in which the runs differ).
function M.table(list, words, options)
  list = chosen(list, words, options)
  if #list == 0 then return print 'no runs' end
  local keys = options.group and split(options.group) or runs.varied(list)
  for _, key in ipairs(options.group and keys or {}) do runs.check_key(list, key) end
  local rows, metrics = {}, metrics_of(list, options)
  for i, run in ipairs(list) do
    rows[i] = {}
    for _, key in ipairs(keys) do rows[i][key] = runs.value(run, key) or '' end
    for _, name in ipairs(metrics) do rows[i][name] = run.metrics[name] end
  end
  show(tables.grouped(rows, keys, metrics, 'runs'), options)
end

function M.plot(list, words, options)
  local metric = table.remove(words, 1)
  if not metric then error('runs plot: name a metric and runs, as in ./tycho runs plot loss last', 0) end
  local series = {}
  for _, word in ipairs(#words > 0 and words or { 'last' }) do
    local run = runs.find(list, word)
    local one = read.series((read.metrics(run.path)), metric)
    if not one then
      runs.check_key({ run }, metric)
      error(("%s has no values of '%s' over its epochs"):format(run.name, metric), 0)
    end
    if not one.is_finite then error(("%s: '%s' is never a finite number"):format(run.name, metric), 0) end
    one.name = run.name
    series[#series + 1] = one
  end
  local figure, path = plot.lines { title = metric, xlabel = 'epoch', ylabel = metric, series = series }, options.file
  if not path then return print(figure) end
  local ending = path:match('%.(%w+)$')
  if ending ~= 'png' and ending ~= 'svg' then error(('--file must end in .svg or .png, got %s'):format(path), 0) end
  figure[ending](figure, path)
  print(path)
end

function M.report(list, words)
  for _, word in ipairs(#words > 0 and words or { 'last' }) do print(report.write(runs.find(list, word).path)) end
end

function M.tag(list, words, options)
  local run = runs.find(list, table.remove(words, 1) or error('runs tag: name a run, and tags for it', 0))
  local tags, dropped = {}, {}
  for _, word in ipairs(options.remove and words or {}) do dropped[word] = true end
  for _, tag in ipairs(run.tags) do
    if not dropped[tag] then tags[#tags + 1] = tag end
  end
  for _, word in ipairs(options.remove and {} or words) do
    if word:find('[%c,]') then error(("'%s' is no tag: no commas, no line breaks"):format(word), 0) end
    if not is_tagged(run, word) then tags[#tags + 1] = word end
  end
  file.write(run.path .. '/tags', table.concat(tags, '\n') .. (#tags > 0 and '\n' or ''))
  print(('%s: %s'):format(run.name, #tags > 0 and table.concat(tags, ' ') or 'no tags'))
end

-- Removes runs after a question, or with --yes; nothing when one of them is in use.
function M.rm(list, words, options)
  if #words == 0 then error('runs rm: name the runs to remove', 0) end
  local doomed = {}
  for i, word in ipairs(words) do
    doomed[i] = runs.find(list, word)
    if read.is_in_use(doomed[i].path) then error(('%s is in use: a process trains it; nothing was removed'):format(doomed[i].name), 0) end
  end
  for _, run in ipairs(doomed) do print(('%s (%s, %d epochs)'):format(run.path, run.status, run.epochs)) end
  if not options.yes then
    io.write(('remove %d run%s? [y/N] '):format(#doomed, #doomed > 1 and 's' or ''))
    io.flush()
    local answer = io.read('*l')
    if not (answer and answer:match('^[yY]')) then error('nothing was removed; --yes answers the question', 0) end
  end
  for _, run in ipairs(doomed) do
    run_directory.remove(run.path)
    if lfs.attributes(run.path) then error(('%s could not be removed whole'):format(run.path), 0) end
  end
end

return M
