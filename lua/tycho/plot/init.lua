-- Line charts as SVG and PNG: what may be asked for, and whether it can be drawn. layout.lua turns a chart into marks; svg.lua and raster.lua
-- draw them. No other kinds of charts, no logarithmic axes.
--
--   plot.lines{title=, xlabel=, ylabel=, xlim={low, high}, ylim={low, high}, x_ticks={positions={}, labels={}},
--              series={{name=, x={}, y={}, yerr={}}, ...}, hlines={{y=, name=}, ...}}:svg(path), :png(path [, scale])
--   plot.panels{chart or its options, ...}: side by side
-- Only series with x and y must be given. A NaN leaves a gap in its line; what lies beyond xlim or ylim is cut off at the frame; yerr are the
-- half lengths of error bars.
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

local function check(options)
  if type(options) ~= 'table' or type(options.series) ~= 'table' or #options.series == 0 then
    fail('expected series = {{name=, x=, y=}, ...} with at least one')
  end
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

return M
