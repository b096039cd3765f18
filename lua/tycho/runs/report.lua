-- report.html of a run: one page that needs no other file, no network and no script. Made from the run's own files, so it can be made again at any
-- time. Images that figures.json lists ({file, caption} each, below the run's directory) are put into the page.
local file = require 'tycho.io.file'
local json = require 'tycho.io.json'
local markup = require 'tycho.io.markup'
local plot = require 'tycho.plot'
local read = require 'tycho.runs.read'

local M = {}

local SERIES, OPEN = 6, 12 -- curves in a chart, charts that are shown before the rest is folded
local LINES = 30 -- of the log

local style = [[
body { font: 15px/1.5 sans-serif; color: #222; max-width: 1000px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; } td, th { padding: .15em .8em .15em 0; text-align: left; vertical-align: top; border-bottom: 1px solid #eee; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.charts { display: flex; flex-wrap: wrap; } .charts svg { width: 460px; max-width: 100%; height: auto; }
figure { margin: 1em 0; } figure img, figure svg { max-width: 100%; height: auto; } figcaption { color: #555; }
pre { overflow-x: auto; background: #f6f6f6; padding: .6em; } summary { cursor: pointer; color: #0072b2; }
]]

local base64, escape = markup.base64, markup.escape

-- ---- images ----

local types = { png = 'image/png', jpg = 'image/jpeg', svg = 'image/svg+xml' }

-- The objects in a list, which may be anything.
local function objects_in(list)
  local out = {}
  for _, item in ipairs(type(list) == 'table' and list or {}) do
    if type(item) == 'table' and item[1] == nil then out[#out + 1] = item end
  end
  return out
end

local function figures(path)
  local out = {}
  for _, figure in ipairs(objects_in(json.read(path .. '/figures.json'))) do
    local bytes, kind = file.read(path .. '/' .. tostring(figure.file)), types[tostring(figure.file):match('%.(%w+)$') or '']
    if bytes and kind then
      out[#out + 1] = ('<figure><img alt="%s" src="data:%s;base64,%s"><figcaption>%s</figcaption></figure>'):format(escape(figure.caption), kind,
        base64(bytes), escape(figure.caption))
    end
  end
  return table.concat(out, '\n')
end

-- Adds an image of the run's directory to those that its page shows.
function M.add_figure(path, name, caption)
  local list = objects_in(json.read(path .. '/figures.json'))
  for i = #list, 1, -1 do
    if list[i].file == name then table.remove(list, i) end
  end
  list[#list + 1] = { file = name, caption = caption }
  json.save(path .. '/figures.json', list)
end

-- ---- curves ----

-- At most SERIES names of a list, evenly over it.
local function some(names)
  if #names <= SERIES then return names end
  local out = {}
  for i = 0, SERIES - 1 do out[i + 1] = names[1 + math.floor(i * (#names - 1) / (SERIES - 1) + 0.5)] end
  return out
end

-- c2 before c10.
local function natural(name) return (name:gsub('%d+', function(n) return ('%09d'):format(tonumber(n) % 1e9) end)) end

local counters = { epoch = true, iteration = true }

-- Charts as SVG texts, the simplest names first: one for each metric, or for those that have the same words before their last slash.
local function charts(rows)
  local names = {}
  for name in pairs(read.last(rows)) do
    if not counters[name] then names[#names + 1] = name end
  end
  table.sort(names, function(a, b)
    local p, q = a:find('/', 1, true) ~= nil, b:find('/', 1, true) ~= nil
    if p ~= q then return q end
    return natural(a) < natural(b)
  end)
  local groups, order = {}, {}
  for _, name in ipairs(names) do
    local chart = name:match('^(.*)/[^/]*$') or name
    if not groups[chart] then
      groups[chart] = {}
      order[#order + 1] = chart
    end
    table.insert(groups[chart], name)
  end
  local out = {}
  for _, chart in ipairs(order) do
    local series = {}
    for _, name in ipairs(some(groups[chart])) do
      local one = read.series(rows, name)
      if one and one.is_finite then
        one.name = #groups[chart] > 1 and name:match('[^/]*$') or nil
        series[#series + 1] = one
      end
    end
    if #series > 0 then out[#out + 1] = plot.lines({ title = chart, xlabel = 'epoch', series = series }):svg() end
  end
  return out
end

-- ---- tables ----

local function number(x)
  if x ~= x then return 'nan' end
  return x == math.floor(x) and math.abs(x) < 1e15 and ('%d'):format(x) or ('%.4g'):format(x)
end

local function html_table(heads, rows)
  local lines = { '<table>' }
  local names = {}
  for i, head in ipairs(heads or {}) do
    names[i] = ('<th%s>%s</th>'):format(rows[1] and type(rows[1][i]) == 'number' and ' class="number"' or '', escape(head))
  end
  if heads then lines[2] = '<tr>' .. table.concat(names) .. '</tr>' end
  for _, row in ipairs(rows) do
    local cells = {}
    for i, value in ipairs(row) do
      cells[i] = type(value) == 'number' and ('<td class="number">%s</td>'):format(number(value)) or ('<td>%s</td>'):format(escape(value))
    end
    lines[#lines + 1] = '<tr>' .. table.concat(cells) .. '</tr>'
  end
  lines[#lines + 1] = '</table>'
  return table.concat(lines, '\n')
end

local function sorted(values)
  local names = {}
  for name in pairs(values or {}) do names[#names + 1] = name end
  table.sort(names, function(a, b) return natural(a) < natural(b) end)
  return names
end

-- Last, lowest and highest value of each metric whose name has no slash, or of the others.
local function metrics_table(rows, with_slash)
  local low, high, last, out = {}, {}, read.last(rows), {}
  for _, row in ipairs(rows) do
    for name, value in pairs(row) do
      if type(value) == 'number' then
        low[name], high[name] = math.min(low[name] or math.huge, value), math.max(high[name] or -math.huge, value)
      end
    end
  end
  for _, name in ipairs(sorted(last)) do
    if (name:find('/', 1, true) ~= nil) == with_slash and not counters[name] then out[#out + 1] = { name, last[name], low[name], high[name] } end
  end
  return #out > 0 and html_table({ 'metric', 'last', 'lowest', 'highest' }, out) or ''
end

local function results_table(path)
  local results = json.read(path .. '/results.json')
  local list = objects_in(results and results.rows)
  if #list == 0 then return '' end
  local heads, seen, rows = {}, {}, {}
  for _, row in ipairs(list) do
    for _, name in ipairs(sorted(row)) do
      if not seen[name] then heads[#heads + 1] = name end
      seen[name] = true
    end
  end
  for i, row in ipairs(list) do
    rows[i] = {}
    for k, name in ipairs(heads) do rows[i][k] = row[name] == nil and '' or row[name] == json.null and '' or row[name] end
  end
  return html_table(heads, rows)
end

local function folded(title, content)
  return content ~= '' and ('<details><summary>%s</summary>\n%s\n</details>'):format(escape(title), content) or ''
end

local function section(title, ...)
  local content = table.concat({ ... }, '\n')
  return content:match('%S') and ('<h2>%s</h2>\n%s\n'):format(escape(title), content) or ''
end

-- Writes report.html into the run's directory; returns its path.
function M.write(path)
  local run, rows = read.run(path), (read.metrics(path))
  local curves = charts(rows)
  local settings = {}
  for _, key in ipairs(sorted(run.settings)) do settings[#settings + 1] = { key, tostring(run.settings[key]) } end
  local head = ('%s, %d epochs%s'):format(run.status, run.epochs, run.problem and '; ' .. run.problem or '')
  local page = {
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>', escape(run.name), '</title>\n<style>\n', style, '</style></head><body>\n',
    '<h1>', escape(run.name), '</h1>\n<p>', escape(head), '</p>\n', run.message and '<pre>' .. escape(run.message) .. '</pre>\n' or '',
    section('Results', results_table(path), metrics_table(rows, false), folded('more metrics', metrics_table(rows, true))),
    section('Curves', '<div class="charts">', table.concat(curves, '', 1, math.min(OPEN, #curves)), '</div>',
      #curves > OPEN and folded('more curves', '<div class="charts">' .. table.concat(curves, '', OPEN + 1) .. '</div>') or ''),
    section('Figures', figures(path)),
    section('Configuration', folded('settings', #settings > 0 and html_table(nil, settings) or ''),
      folded('arguments', file.read(path .. '/arguments.txt') and '<pre>' .. escape(file.read(path .. '/arguments.txt')) .. '</pre>' or ''),
      folded('versions', file.read(path .. '/versions.json') and '<pre>' .. escape(file.read(path .. '/versions.json')) .. '</pre>' or ''),
      folded('end of train.log', '<pre>' .. escape(table.concat(read.tail(path .. '/train.log', LINES), '\n')) .. '</pre>')),
    '</body></html>\n',
  }
  file.write(path .. '/report.html', table.concat(page))
  return path .. '/report.html'
end

return M
