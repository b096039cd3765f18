-- Line charts as SVG and PNG. A chart becomes a flat list of marks (rectangles, polylines, texts) in pixels; svg.lua and raster.lua draw that list.
--
--   plot.lines{title=, xlabel=, ylabel=, ylim={low, high}, x_ticks={positions={}, labels={}},
--              series={{name=, x={}, y={}, yerr={}}, ...}, hlines={{y=, name=}, ...}}:svg(path), :png(path [, scale])
--   plot.panels{chart options, ...}: side by side
-- yerr (half lengths of error bars) may be left out. A NaN leaves a gap in its line; values beyond ylim are cut at the frame.
local M = {}

local WIDTH, HEIGHT = 460, 340 -- of a panel
local FRAME = { left = 62, right = 18, top = 36, bottom = 86 }
local LEGEND_ROW = 18
local PALETTE = { '#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9' } -- Okabe and Ito: told apart by colour-blind readers
local INK, GRID, GREY = '#222222', '#e4e4e4', '#777777'

local Figure = {}
Figure.__index = Figure

-- Round steps (1, 2, 5 times a power of ten) that cut low..high into about n parts.
function M.ticks(low, high, n)
  local raw = (high - low) / n
  local power = 10 ^ math.floor(math.log10(raw))
  local step = power
  for _, factor in ipairs { 1, 2, 5, 10 } do
    step = factor * power
    if step >= raw * 0.999 then break end
  end
  local out = {}
  for i = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) do out[#out + 1] = i * step + 0 end -- no negative zero
  return out, step
end

local function label_of(value, step)
  if math.abs(value) >= 1e5 or step < 1e-3 then return (('%.4g'):format(value):gsub('e([+-])0*', 'e%1'):gsub('e%+', 'e')) end
  local digits = math.max(0, -math.floor(math.log10(step) + 1e-9)) + 0
  local text = ('%.' .. digits .. 'f'):format(value)
  return tonumber(text) == 0 and text:gsub('-', '') or text
end

local function is_number(v) return type(v) == 'number' and v == v and math.abs(v) < math.huge end

local function range_of(options, key)
  local low, high = math.huge, -math.huge
  for _, series in ipairs(options.series) do
    for i = 1, #series.x do
      local value, reach = series[key][i], key == 'y' and series.yerr and series.yerr[i]
      if not is_number(reach) then reach = 0 end
      if is_number(value) then low, high = math.min(low, value - reach), math.max(high, value + reach) end
    end
  end
  if low == high then low, high = low - 0.5, high + 0.5 end
  return low, high
end

local function validate(options)
  if type(options.series) ~= 'table' or #options.series == 0 then error('plot: expected series = {{name=, x=, y=}, ...} with at least one', 0) end
  for i, series in ipairs(options.series) do
    local name = series.name or ('series %d'):format(i)
    if type(series.x) ~= 'table' or type(series.y) ~= 'table' or #series.x ~= #series.y then
      error(("plot: '%s' needs lists x and y of equal length"):format(name), 0)
    end
    local usable = false
    for j = 1, #series.x do usable = usable or (is_number(series.x[j]) and is_number(series.y[j])) end
    if not usable then error(("plot: '%s' has no point to draw (empty, or nothing but NaN)"):format(name), 0) end
  end
end

-- The runs of drawable points of a series, in pixels, cut at the frame; low and high are the ends of a point's error bar.
local function runs_of(series, place_x, place_y, top, bottom)
  local runs, current = {}, nil
  for i = 1, #series.x do
    if is_number(series.x[i]) and is_number(series.y[i]) then
      if not current then
        current = {}
        runs[#runs + 1] = current
      end
      local function height(y) return math.max(top, math.min(bottom, place_y(y))) end
      local point, reach = { place_x(series.x[i]), height(series.y[i]) }, series.yerr and series.yerr[i]
      if is_number(reach) and reach > 0 then point.low, point.high = height(series.y[i] - reach), height(series.y[i] + reach) end
      current[#current + 1] = point
    else
      current = nil
    end
  end
  return runs
end

-- Marks of one chart, and the height that it needs.
local function panel(options, offset)
  validate(options)
  local marks = {}
  local function add(mark) marks[#marks + 1] = mark end
  local left, right = offset + FRAME.left, offset + WIDTH - FRAME.right
  local top, bottom = FRAME.top, HEIGHT - FRAME.bottom
  local x_low, x_high = range_of(options, 'x')
  local y_low, y_high = range_of(options, 'y')
  if options.ylim then
    y_low, y_high = unpack(options.ylim)
  else
    local margin = 0.05 * (y_high - y_low)
    y_low, y_high = y_low - margin, y_high + margin
  end
  local margin = 0.04 * (x_high - x_low)
  x_low, x_high = x_low - margin, x_high + margin
  local function place_x(x) return left + (x - x_low) / (x_high - x_low) * (right - left) end
  local function place_y(y) return bottom - (y - y_low) / (y_high - y_low) * (bottom - top) end

  local y_ticks, y_step = M.ticks(y_low, y_high, 7)
  for _, y in ipairs(y_ticks) do
    add { kind = 'line', points = { { left, place_y(y) }, { right, place_y(y) } }, color = GRID, width = 1 }
    add { kind = 'text', x = left - 8, y = place_y(y) + 4, text = label_of(y, y_step), size = 12, anchor = 'end', color = INK }
  end
  local positions, x_step = M.ticks(x_low, x_high, 6)
  local labels = {}
  for i, x in ipairs(positions) do labels[i] = label_of(x, x_step) end
  if options.x_ticks then positions, labels = options.x_ticks.positions, options.x_ticks.labels end
  for i, x in ipairs(positions) do
    add { kind = 'line', points = { { place_x(x), bottom }, { place_x(x), bottom + 4 } }, color = INK, width = 1 }
    add { kind = 'text', x = place_x(x), y = bottom + 18, text = labels[i], size = 12, anchor = 'middle', color = INK }
  end
  add { kind = 'line', points = { { left, top }, { left, bottom }, { right, bottom } }, color = INK, width = 1 }
  add { kind = 'text', x = (left + right) / 2, y = top - 14, text = options.title or '', size = 15, anchor = 'middle', color = INK }
  add { kind = 'text', x = (left + right) / 2, y = bottom + 38, text = options.xlabel or '', size = 13, anchor = 'middle', color = INK }
  add { kind = 'text', x = offset + 16, y = (top + bottom) / 2, text = options.ylabel or '', size = 13, anchor = 'middle', color = INK,
    upright = true }

  local legend = {}
  for _, line in ipairs(options.hlines or {}) do
    if line.y >= y_low and line.y <= y_high then
      add { kind = 'line', points = { { left, place_y(line.y) }, { right, place_y(line.y) } }, color = GREY, width = 1.5, dashed = true }
      legend[#legend + 1] = { name = line.name, color = GREY, dashed = true }
    end
  end
  for i, series in ipairs(options.series) do
    local color = PALETTE[(i - 1) % #PALETTE + 1]
    for _, run in ipairs(runs_of(series, place_x, place_y, top, bottom)) do
      if #run > 1 then add { kind = 'line', points = run, color = color, width = 2.5 } end
      for _, point in ipairs(run) do
        if point.low then add { kind = 'line', points = { { point[1], point.low }, { point[1], point.high } }, color = color, width = 1.5 } end
        add { kind = 'rect', x = point[1] - 3.5, y = point[2] - 3.5, width = 7, height = 7, color = color }
      end
    end
    table.insert(legend, i, { name = series.name, color = color })
  end
  local x, y = left, bottom + 62
  for _, entry in ipairs(legend) do
    if entry.name then
      local width = 28 + 7.2 * #entry.name
      if x > left and x + width > right + FRAME.right then x, y = left, y + LEGEND_ROW end
      add { kind = 'line', points = { { x, y }, { x + 22, y } }, color = entry.color, width = 2.5, dashed = entry.dashed }
      add { kind = 'text', x = x + 28, y = y + 4, text = entry.name, size = 12, anchor = 'start', color = INK }
      x = x + width + 22
    end
  end
  return marks, y + HEIGHT - (bottom + 62)
end

-- Charts side by side, one for each table of options.
function M.panels(list)
  local marks, height = {}, HEIGHT
  for i, options in ipairs(list) do
    local drawn, needed = panel(options, (i - 1) * WIDTH)
    for _, mark in ipairs(drawn) do marks[#marks + 1] = mark end
    height = math.max(height, needed)
  end
  return setmetatable({ width = WIDTH * #list, height = height, marks = marks }, Figure)
end

-- One chart.
function M.lines(options) return M.panels { options } end

-- Writes path whole or not at all.
function Figure:svg(path) require('tycho.plot.svg')(self, path) end
function Figure:png(path, scale) require('tycho.plot.raster')(self, path, scale or 2) end

return M
