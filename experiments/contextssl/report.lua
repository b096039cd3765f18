-- Results for people and programs: tables on the terminal, results.json, results.csv, and the figure of R2 by context length.
-- Results are rows: {embedding = 'features', 'z+', 'zr' or 'read-out', mode =, context =, and a value under the key of each metric}; features
-- have no mode and no context. Metrics are a list of {key =, name =, floor = value of a predictor that knows nothing, or nil}.
local csv = require 'tycho.io.csv'
local page = require 'tycho.runs.report'
local plot = require 'tycho.plot'
local run_directory = require 'tycho.train.run'

local M = {}

local LABEL, CELL = 10, 8
local mode_names = { rot = 'rotation context', color = 'colour context', none = 'empty context' }

-- The row of an embedding, mode and context length, or nil.
function M.find(rows, embedding, mode, c)
  for _, row in ipairs(rows) do
    if row.embedding == embedding and row.mode == mode and row.context == c then return row end
  end
end

-- Columns of a table in groups: list of {name, columns = list of {name, mode, metric}}.
local function grouped(options)
  local groups = {}
  if options.by == 'mode' then
    for i, mode in ipairs(options.modes) do
      groups[i] = { name = mode_names[mode], columns = {} }
      for k, metric in ipairs(options.metrics) do groups[i].columns[k] = { name = metric.name, mode = mode, metric = metric } end
    end
  else
    for i, metric in ipairs(options.metrics) do
      groups[i] = { name = metric.name, columns = {} }
      for k, mode in ipairs(options.modes) do groups[i].columns[k] = { name = mode, mode = mode, metric = metric } end
    end
  end
  return groups
end

-- Prints the rows of one embedding by context length. options: title, rows, embedding, modes, lengths, metrics, by = 'mode' (a group of columns for
-- each mode; otherwise one for each metric), floor_name.
function M.table(options)
  local groups = grouped(options)
  local function line(label, value)
    local cells = { ('%' .. LABEL .. 's'):format(label) }
    for _, group in ipairs(groups) do
      for i, column in ipairs(group.columns) do
        local x = value(column)
        cells[#cells + 1] = (i == 1 and '  ' or '') .. ('%' .. CELL .. 's'):format(type(x) == 'number' and ('%.3f'):format(x) or x or '')
      end
    end
    print((table.concat(cells):gsub('%s+$', '')))
  end
  print('\n' .. options.title)
  local heads = { (' '):rep(LABEL) }
  for _, group in ipairs(groups) do
    local width = 2 + CELL * #group.columns
    local indent = 2 + math.max(0, CELL - #group.columns[1].name)
    heads[#heads + 1] = ('%-' .. width .. 's'):format((' '):rep(math.min(indent, width - #group.name)) .. group.name)
  end
  print((table.concat(heads):gsub('%s+$', '')))
  line('tokens', function(column) return column.name end)
  local features = options.embedding == 'z+' and M.find(options.rows, 'features')
  if features then line('features', function(column) return features[column.metric.key] end) end
  for _, c in ipairs(options.lengths) do
    line(c, function(column)
      local row = M.find(options.rows, options.embedding, column.mode, c)
      return row and row[column.metric.key]
    end)
  end
  if options.floor_name then line(options.floor_name, function(column) return column.metric.floor end) end
end

-- R2 of rotation and colour of an embedding by context length, one panel for each mode. floor: rotation R2 of a constant predictor.
function M.figure(rows, embedding, modes, lengths, floor, ylabel)
  local panels = {}
  for _, mode in ipairs(modes) do
    local rotation, color, positions, labels = {}, {}, {}, {}
    for i, c in ipairs(lengths) do
      local row = M.find(rows, embedding, mode, c)
      positions[i], labels[i], rotation[i], color[i] = i, tostring(c), row.rotation_r2, row.color_r2
    end
    panels[#panels + 1] = {
      title = mode_names[mode], xlabel = 'context length (tokens)', ylabel = ylabel,
      x_ticks = { positions = positions, labels = labels }, ylim = { -0.3, 1 },
      series = { { name = 'rotation', x = positions, y = rotation }, { name = 'colour', x = positions, y = color } },
      hlines = { { y = floor, name = 'floor (rotation)' } },
    }
  end
  return plot.panels(panels)
end

-- Writes NAME.svg and NAME.png into the run's directory, and the first of them into its report.html.
function M.draw(run, name, figure)
  figure:svg(('%s/%s.svg'):format(run.path, name))
  figure:png(('%s/%s.png'):format(run.path, name))
  print(('plot: %s/%s.svg and .png'):format(run.path, name))
  page.add_figure(run.path, name .. '.svg', 'R2 on held-out images by context length')
  page.write(run.path)
end

-- Writes results.json, results.rows as results.csv, and the run's report.html.
function M.write(run, results, metrics)
  local columns = { 'embedding', 'split', 'mode', 'context' }
  for _, metric in ipairs(metrics) do columns[#columns + 1] = metric.key end
  run:write('results.csv', csv.encode(columns, results.rows))
  print(('\nresults: %s and results.csv'):format(run:write('results.json', run_directory.encode(results, true) .. '\n')))
  print('report: ' .. page.write(run.path))
end

return M
