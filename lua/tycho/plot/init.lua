-- Line charts, histograms and images as text, SVG and PNG: what may be asked for, and whether it can be drawn. layout.lua turns a chart into marks;
-- svg.lua and raster.lua draw them, text.lua draws charts in a terminal, picture.lua images. No logarithmic axes.
--
--   plot(y), plot(x, y), plot(x, {name = y, ...}): lists or tensors with one dim; prints in the terminal, has :svg and :png
--   plot.hist(x, bins), plot.imshow(image or batch), plot.grid(images, columns)
--   plot.lines{title=, xlabel=, ylabel=, xlim={low, high}, ylim={low, high}, x_ticks={positions={}, labels={}},
--              series={{name=, x={}, y={}, yerr={}, dots=false to have none}, ...}, hlines={{y=, name=}, ...}}:svg(path), :png(path [, scale])
--   plot.panels{chart or its options, ...}: side by side
-- Only series with x and y must be given. A NaN leaves a gap in its line; what lies beyond xlim or ylim is cut off at the frame; yerr are the
-- half lengths of error bars.
local check_options = require 'tycho.options'
local layout = require 'tycho.plot.layout'

local M = { ticks = layout.ticks }

local Figure = {}
Figure.__index = Figure

local is_number = layout.is_number

local function fail(message, ...) error(('plot: ' .. message):format(...), 0) end

local function check_series(series, i)
  if type(series) ~= 'table' then fail('series %d must be a table {name=, x=, y=}, got %s', i, type(series)) end
  local name = series.name or ('series %d'):format(i)
  local x, y, yerr = series.x, series.y, series.yerr
  if type(x) ~= 'table' or type(y) ~= 'table' then fail("'%s' needs lists x and y, got %s and %s", name, type(x), type(y)) end
  if #x ~= #y then fail("'%s' needs lists x and y of equal length, got %d and %d values", name, #x, #y) end
  if yerr and (type(yerr) ~= 'table' or #yerr ~= #y) then fail("'%s' needs as many values in yerr as in y (%d; NaN for no bar)", name, #y) end
  for j = 1, #x do
    if is_number(x[j]) and is_number(y[j]) then return end
  end
  fail("'%s' has no point to draw (%s)", name, #x == 0 and 'it is empty' or 'nothing but NaN')
end

local function check_limits(options, key)
  local limits = options[key]
  if limits and not (type(limits) == 'table' and is_number(limits[1]) and is_number(limits[2]) and limits[1] < limits[2]) then
    fail('%s must be {low, high} with low < high', key)
  end
end

local known = { title = true, xlabel = true, ylabel = true, xlim = true, ylim = true, x_ticks = true, series = true, hlines = true }

local function check(options)
  if type(options) ~= 'table' or type(options.series) ~= 'table' or #options.series == 0 then
    fail('expected series = {{name=, x=, y=}, ...} with at least one')
  end
  check_options('plot', options, known)
  for i, series in ipairs(options.series) do check_series(series, i) end
  check_limits(options, 'xlim')
  check_limits(options, 'ylim')
  local ticks = options.x_ticks
  if ticks and not (type(ticks.positions) == 'table' and type(ticks.labels) == 'table' and #ticks.positions == #ticks.labels) then
    fail('x_ticks must be {positions={...}, labels={...}} of equal length')
  end
  for i, line in ipairs(options.hlines or {}) do
    if not is_number(line.y) then fail("hlines: '%s' needs a finite y, got %s", line.name or i, tostring(line.y)) end
  end
  return options
end

-- Charts side by side; an entry is the options of a chart, or a chart made before.
function M.panels(list)
  local charts = {}
  for _, entry in ipairs(list) do
    for _, options in ipairs(getmetatable(entry) == Figure and entry.charts or { entry }) do charts[#charts + 1] = check(options) end
  end
  if #charts == 0 then fail('panels: expected at least one chart') end
  local marks, width, height = layout.figure(charts)
  return setmetatable({ charts = charts, marks = marks, width = width, height = height }, Figure)
end

-- One chart.
function M.lines(options) return M.panels { options } end

-- Both write path whole or not at all; svg without a path returns the text.
function Figure:svg(path) return require('tycho.plot.svg')(self, path) end

-- scale: pixels per SVG unit, default 2.
function Figure:png(path, scale)
  scale = scale or 2
  if not is_number(scale) or scale * math.min(self.width, self.height) < 1 then fail('png: scale must be a number > 0, got %s', tostring(scale)) end
  if not path:lower():match('%.png$') then fail('png: %s must end in .png', path) end
  require('tycho.plot.raster')(self, path, scale)
end

-- In a terminal. options: {columns, rows, colors, plain}, the terminal's own by default.
function Figure:text(options)
  local terminal = require 'tycho.repl.terminal'
  local columns, rows = terminal.size()
  local defaults = { columns = math.min(columns - 1, 100), rows = math.max(4, math.min(16, rows - 8)), colors = terminal.has_colors(1),
    plain = os.getenv('TERM') == 'dumb' }
  return require('tycho.plot.text')(self, setmetatable(options or {}, { __index = defaults }))
end
function Figure:__tostring() return self:text() end

-- ---- from data ----

-- A list of numbers from a list or a tensor with one dim.
local function numbers(values, what)
  local tensor = require 'tycho.tensor'
  if tensor.is_tensor(values) then
    if values.ndim ~= 1 then fail('%s must have one dim, got shape %s', what, tensor.shape_text(values)) end
    return values:tolist()
  end
  if type(values) ~= 'table' then fail('%s must be a list or a tensor, got %s', what, type(values)) end
  return values
end

local function is_named(values)
  return type(values) == 'table' and not require('tycho.tensor').is_tensor(values) and type((next(values))) == 'string'
end

local function plot(x, y, options)
  if y == nil then
    y = x
    x = nil
  end
  local series = {}
  local function add(name, values)
    values = numbers(values, name and ("'%s'"):format(name) or 'y')
    local at = x and numbers(x, 'x') or {}
    for i = 1, x and 0 or #values do at[i] = i - 1 end
    series[#series + 1] = { name = name, x = at, y = values, dots = false }
  end
  if is_named(y) then
    local names = {}
    for name in pairs(y) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do add(name, y[name]) end
  else
    add(nil, y)
  end
  local chart = { series = series }
  for key, value in pairs(options or {}) do chart[key] = value end
  return M.lines(chart)
end

-- How many numbers of x (any shape) lie in each of `bins` equal parts of their range; NaN and infinities are left out, and said in the title.
function M.hist(x, bins)
  local tensor = require 'tycho.tensor'
  local values = tensor.is_tensor(x) and x:contiguous():reshape({ -1 }):tolist() or numbers(x, 'hist: x')
  local low, high, count = math.huge, -math.huge, 0
  for _, v in ipairs(values) do
    if is_number(v) then low, high, count = math.min(low, v), math.max(high, v), count + 1 end
  end
  if count == 0 then fail('hist: there is nothing to count (%s)', #values == 0 and 'it is empty' or 'no number is finite') end
  if bins and not (is_number(bins) and bins >= 1 and bins == math.floor(bins)) then
    fail('hist: bins must be a whole number >= 1, got %s', tostring(bins))
  end
  if low == high then low, high = low - 0.5, high + 0.5 end
  bins = bins or math.max(5, math.min(60, math.ceil(math.sqrt(count))))
  local counts = {}
  for i = 1, bins do counts[i] = 0 end
  for _, v in ipairs(values) do
    if is_number(v) then
      local i = math.min(bins, math.floor((v - low) / (high - low) * bins) + 1)
      counts[i] = counts[i] + 1
    end
  end
  local xs, ys, most = { low }, { 0 }, 0
  for i = 1, bins do
    most = math.max(most, counts[i])
    for _, edge in ipairs { i - 1, i } do
      xs[#xs + 1], ys[#ys + 1] = low + (high - low) * edge / bins, counts[i]
    end
  end
  xs[#xs + 1], ys[#ys + 1] = high, 0
  return M.lines { title = ('%d numbers%s'):format(count, #values > count and (', %d not finite left out'):format(#values - count) or ''),
    ylim = { 0, most * 1.05 }, series = { { x = xs, y = ys, dots = false } } }
end

function M.imshow(...) return require('tycho.plot.picture').imshow(...) end
function M.grid(...) return require('tycho.plot.picture').grid(...) end

return setmetatable(M, { __call = function(_, ...) return plot(...) end })
