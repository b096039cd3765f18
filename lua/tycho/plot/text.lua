-- Draws a figure's charts as text for a terminal: lines as braille dots, or as stars where a terminal has nothing else.
local layout = require 'tycho.plot.layout'
local terminal = require 'tycho.repl.terminal'

local floor, max, min, abs = math.floor, math.max, math.min, math.abs
local COLORS = { '34', '31', '32', '35', '33', '36' }
-- Bits of the dots of a braille character, by column and row.
local BITS = { [0] = { [0] = 1, 2, 4, 64 }, { [0] = 8, 16, 32, 128 } }

local Canvas = {}
Canvas.__index = Canvas

local function new_canvas(columns, rows)
  return setmetatable({ columns = columns, rows = rows, width = 2 * columns, height = 4 * rows, bits = {}, owner = {} }, Canvas)
end
function Canvas:dot(x, y, owner)
  if x < 0 or y < 0 or x >= self.width or y >= self.height then return end
  local cell = floor(y / 4) * self.columns + floor(x / 2)
  self.bits[cell] = bit.bor(self.bits[cell] or 0, BITS[x % 2][y % 4])
  self.owner[cell] = owner
end
function Canvas:line(x1, y1, x2, y2, owner)
  local steps = max(1, abs(x2 - x1), abs(y2 - y1))
  for i = 0, steps do self:dot(floor(x1 + (x2 - x1) * i / steps + 0.5), floor(y1 + (y2 - y1) * i / steps + 0.5), owner) end
end

local function paint(text, owner, options)
  return options.colors and ('\27[%sm%s\27[0m'):format(COLORS[(owner - 1) % #COLORS + 1], text) or text
end

local function braille(bits) return string.char(0xe2, 0xa0 + floor(bits / 64), 0x80 + bits % 64) end

function Canvas:row(row, options)
  local out = {}
  for column = 0, self.columns - 1 do
    local cell = row * self.columns + column
    local bits = self.bits[cell]
    local text = not bits and ' ' or options.plain and '*' or braille(bits)
    out[#out + 1] = bits and paint(text, self.owner[cell], options) or text
  end
  return (table.concat(out):gsub(' +$', ''))
end

local function clip(text, room) return text:sub(1, terminal.fitting(text, 1, room)) end

-- Labels of the ticks within low..high, about n of them, by their place among `cells`.
local function tick_labels(low, high, n, cells)
  local ticks, step = layout.ticks(low, high, n)
  local labels = {}
  for _, tick in ipairs(ticks) do labels[floor((tick - low) / (high - low) * (cells - 1) + 0.5)] = layout.label(tick, step) end
  return labels
end

-- A line with each label around its column, but for those that would touch the one before or stand out.
local function axis_line(labels, columns)
  local out, width = {}, 0
  for column = 0, columns - 1 do
    local label = labels[column]
    local first = label and min(max(column - floor(#label / 2), 0), columns - #label)
    if label and first >= (width == 0 and 0 or width + 1) then
      out[#out + 1] = (' '):rep(first - width) .. label
      width = first + #label
    end
  end
  return table.concat(out)
end

-- The lines of one chart.
local function chart_lines(chart, options)
  local x_low, x_high = layout.limits(chart, 'x')
  local y_low, y_high = layout.limits(chart, 'y')
  local labels, room = tick_labels(y_low, y_high, 4, options.rows), 0
  for _, label in pairs(labels) do room = max(room, #label) end
  room = min(room, floor(options.columns / 3))
  local canvas = new_canvas(max(options.columns - room - 2, 4), options.rows)
  local function place(x, y)
    return floor((x - x_low) / (x_high - x_low) * (canvas.width - 1) + 0.5), floor((y_high - y) / (y_high - y_low) * (canvas.height - 1) + 0.5)
  end
  for i, series in ipairs(chart.series) do
    local px, py
    for k = 1, #series.x do
      local x, y
      if layout.is_number(series.x[k]) and layout.is_number(series.y[k]) then
        x, y = place(series.x[k], series.y[k])
        canvas:line(px or x, py or y, x, y, i)
      end
      px, py = x, y
    end
  end
  local lines = {}
  if chart.title then lines[1] = clip((' '):rep(room + 2) .. chart.title, options.columns) end
  for row = 0, options.rows - 1 do
    local label = clip(labels[options.rows - 1 - row] or '', room)
    lines[#lines + 1] = (' '):rep(room - #label) .. label .. (options.plain and '|' or '\226\148\130') .. canvas:row(row, options)
  end
  lines[#lines + 1] = (' '):rep(room + 1) .. axis_line(tick_labels(x_low, x_high, 4, canvas.columns), canvas.columns)
  if chart.xlabel then
    local label = clip(chart.xlabel, canvas.columns)
    lines[#lines + 1] = (' '):rep(room + 1 + floor((canvas.columns - #label) / 2)) .. label
  end
  for i, series in ipairs(chart.series) do
    if series.name then
      local mark = options.plain and '*' or '\226\160\146'
      local name = clip(series.name, options.columns - room - 4)
      lines[#lines + 1] = ('%s%s %s'):format((' '):rep(room + 1), paint(mark, i, options), name)
    end
  end
  return lines
end

-- options: {columns, rows (of a chart's frame), colors, plain (ASCII alone)}.
return function(figure, options)
  local lines = {}
  for _, chart in ipairs(figure.charts) do
    for _, line in ipairs(chart_lines(chart, options)) do lines[#lines + 1] = line end
  end
  return table.concat(lines, '\n')
end
