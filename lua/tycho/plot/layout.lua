-- Where everything in a figure lies: ticks, scales, clipping, legend. The result is a flat list of marks in pixels, y downwards:
--   {kind='line', points={{x, y}, ...}, color=, width=, dash={on, off} or nil}
--   {kind='dot', x=, y=, radius=, color=}
--   {kind='text', x=, y= (base line), text=, size=, anchor='start'|'middle'|'end', color=, upright= (reads upwards)}
-- Draws nothing; expects options that init.lua has checked.
local M = {}

local WIDTH, PLOT_HEIGHT = 460, 222 -- of a panel, of its frame
local TOP, RIGHT = 40, 20 -- room above the frame and right of it
local LEGEND_ROW = 20
local KEY = 24 -- length of a legend's line
local MANY = 40 -- points from which a line goes without dots
local INK, GRID, GREY = '#222222', '#e4e4e4', '#6b6b6b'
local PALETTE = { '#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9' } -- Okabe and Ito: told apart by colour-blind readers
local function color_of(i) return PALETTE[(i - 1) % #PALETTE + 1] end
local DASHES = { { 7, 4 }, { 2, 3 }, { 12, 5 } }

-- What can be drawn: the extent of larger numbers may be infinite.
function M.is_number(v) return type(v) == 'number' and math.abs(v) < 1e300 end
local is_number = M.is_number

-- Round steps (1, 2, 5 times a power of ten) that cut low..high into about n parts: the list of ticks, and the step.
function M.ticks(low, high, n)
  local raw = (high - low) / n
  local power = 10 ^ math.floor(math.log10(raw))
  local step = power
  for _, factor in ipairs { 1, 2, 5, 10 } do
    step = factor * power
    if step >= raw * 0.999 then break end
  end
  local out = {}
  local first = math.ceil(low / step - 1e-9)
  for k = 0, math.floor(high / step + 1e-9) - first do out[#out + 1] = (first + k) * step + 0 end -- no negative zero
  return out, step
end

-- The step alone decides between 200000 and 2e5, so that an axis has one notation.
local function label_of(value, step)
  if step >= 2e5 or step < 1e-3 then return (('%.4g'):format(value):gsub('e([+-])0*', 'e%1'):gsub('e%+', 'e')) end
  local digits = math.max(0, -math.floor(math.log10(step) + 1e-9))
  return (('%%.%df'):format(digits):format(value):gsub('^%-(0[.0]*)$', '%1'))
end

M.label = label_of

-- Sans-serif text is at most about this wide; what an SVG viewer's font really takes is not known here.
local function text_width(text, size)
  local _, characters = text:gsub('[^\128-\191]', '')
  return 0.58 * size * characters
end

-- The size at which text fits into room.
local function fitting(text, size, room) return math.min(size, size * room / math.max(text_width(text, size), 1)) end

-- Lowest and highest finite x or y of a chart, error bars and horizontal lines included.
local function extent(options, key)
  local low, high = math.huge, -math.huge
  local function take(value)
    if is_number(value) then low, high = math.min(low, value), math.max(high, value) end
  end
  for _, series in ipairs(options.series) do
    for i, value in ipairs(series[key]) do
      local reach = key == 'y' and series.yerr and series.yerr[i]
      if not is_number(reach) then reach = 0 end
      if is_number(value) then
        take(value - reach)
        take(value + reach)
      end
    end
  end
  for _, line in ipairs(key == 'y' and options.hlines or {}) do take(line.y) end
  return low, high
end

-- The limits asked for, or the data's with a share of margin.
local function limits_of(options, key, share)
  local limits = options[key .. 'lim']
  if limits then return limits[1], limits[2] end
  local low, high = extent(options, key)
  local margin, largest = share * (high - low), math.max(math.abs(low), math.abs(high))
  if high - low <= 1e-9 * largest or high - low < 1e-300 then -- ticks between them would have the same digits
    margin = largest < 1e-300 and 0.5 or largest * 0.1
  end
  return low - margin, high + margin
end

local MARGIN = { x = 0.04, y = 0.05 } -- share of the data's extent on each side
-- Lowest and highest value of an axis ('x' or 'y') of a chart.
function M.limits(options, key) return limits_of(options, key, MARGIN[key]) end

-- Lines one pixel wide are sharp halfway between whole coordinates.
local function sharp(v) return math.floor(v) + 0.5 end

-- The part of p..q inside the frame, nil if none (Liang and Barsky 1984).
local function clip(p, q, frame)
  local dx, dy = q[1] - p[1], q[2] - p[2]
  local first, last = 0, 1
  local function cut(change, room)
    if change == 0 then return room >= 0 end
    local t = room / change
    if change < 0 then first = math.max(first, t) else last = math.min(last, t) end
    return first <= last
  end
  if not (cut(-dx, p[1] - frame.left) and cut(dx, frame.right - p[1]) and cut(-dy, p[2] - frame.top) and cut(dy, frame.bottom - p[2])) then
    return nil
  end
  local function at(t) return t == 0 and p or t == 1 and q or { p[1] + t * dx, p[2] + t * dy } end
  return at(first), at(last)
end

local function has_dots(series) return series.dots ~= false and #series.x < MANY end

-- Adds the visible stretches of a series' line, its error bars and its dots.
local function add_series(add, series, color, frame)
  local stretch, previous
  for i = 1, #series.x do
    local x, y = series.x[i], series.y[i]
    local point = is_number(x) and is_number(y) and { frame.place_x(x), frame.place_y(y) } or nil
    local from, to
    if previous and point then from, to = clip(previous, point, frame) end
    if from and stretch and stretch[#stretch] == from then
      stretch[#stretch + 1] = to
    elseif from then
      stretch = { from, to }
      add { kind = 'line', points = stretch, color = color, width = 2.5 }
    end
    previous = point
  end
  for i = 1, #series.x do
    local x, y, reach = series.x[i], series.y[i], series.yerr and series.yerr[i]
    if is_number(x) and is_number(y) then
      local point = { frame.place_x(x), frame.place_y(y) }
      if is_number(reach) and reach > 0 then
        local low, high = clip({ point[1], frame.place_y(y - reach) }, { point[1], frame.place_y(y + reach) }, frame)
        if low then add { kind = 'line', points = { low, high }, color = color, width = 1.5 } end
      end
      local alone = not is_number(series.y[i - 1]) and not is_number(series.y[i + 1])
      if (has_dots(series) or alone) and clip(point, point, frame) then
        add { kind = 'dot', x = point[1], y = point[2], radius = 4, color = color }
      end
    end
  end
end

-- Adds rows of keys and names between left and right from y on; returns the y of the last row.
local function add_legend(add, entries, left, right, y)
  local x = left
  for _, entry in ipairs(entries) do
    local size = fitting(entry.name, 12, right - left - KEY - 6)
    local width = KEY + 6 + text_width(entry.name, size)
    if x > left and x + width > right then x, y = left, y + LEGEND_ROW end
    add { kind = 'line', points = { { x, y }, { x + KEY, y } }, color = entry.color, width = entry.width, dash = entry.dash }
    if entry.dots then add { kind = 'dot', x = x + KEY / 2, y = y, radius = 4, color = entry.color } end
    add { kind = 'text', x = x + KEY + 6, y = y + 4, text = entry.name, size = size, anchor = 'start', color = INK }
    x = x + width + 18
  end
  return y
end

-- Adds the marks of one chart whose panel begins at x = offset; returns the height that it needs.
local function add_panel(add, options, offset)
  local x_low, x_high = M.limits(options, 'x')
  local y_low, y_high = M.limits(options, 'y')
  local y_ticks, y_step = M.ticks(y_low, y_high, 7)
  local label_room = 0
  for _, y in ipairs(y_ticks) do label_room = math.max(label_room, text_width(label_of(y, y_step), 12)) end

  local left, right = sharp(offset + label_room + 44), sharp(offset + WIDTH - RIGHT)
  local top, bottom = sharp(TOP), sharp(TOP + PLOT_HEIGHT)
  local frame = { left = left, right = right, top = top, bottom = bottom }
  function frame.place_x(x) return left + (x - x_low) / (x_high - x_low) * (right - left) end
  function frame.place_y(y) return bottom - (y - y_low) / (y_high - y_low) * (bottom - top) end
  local function add_line(x1, y1, x2, y2, color, width, dash)
    add { kind = 'line', points = { { x1, y1 }, { x2, y2 } }, color = color, width = width, dash = dash }
  end
  local function add_text(x, y, text, size, anchor, upright)
    add { kind = 'text', x = x, y = y, text = text, size = size, anchor = anchor, color = INK, upright = upright }
  end

  for _, tick in ipairs(y_ticks) do
    local y = sharp(frame.place_y(tick))
    add_line(left, y, right, y, GRID, 1)
    add_text(left - 9, y + 4, label_of(tick, y_step), 12, 'end')
  end
  local positions, x_step = M.ticks(x_low, x_high, 6)
  local labels = options.x_ticks and options.x_ticks.labels
  if labels then positions = options.x_ticks.positions end
  for i, tick in ipairs(positions) do
    if tick >= x_low and tick <= x_high then
      local x = sharp(frame.place_x(tick))
      add_line(x, top, x, bottom, GRID, 1)
      add_line(x, bottom, x, bottom + 5, INK, 1)
      add_text(x, bottom + 19, labels and tostring(labels[i]) or label_of(tick, x_step), 12, 'middle')
    end
  end
  add_line(left, top, left, bottom, INK, 1)
  add_line(left, bottom, right, bottom, INK, 1)

  local legend, rules = {}, 0
  for i, series in ipairs(options.series) do
    if series.name then legend[#legend + 1] = { name = series.name, color = color_of(i), width = 2.5, dots = has_dots(series) } end
  end
  for _, line in ipairs(options.hlines or {}) do
    if line.y >= y_low and line.y <= y_high then
      rules = rules + 1
      local y, dash = frame.place_y(line.y), DASHES[(rules - 1) % #DASHES + 1]
      add_line(left, y, right, y, GREY, 1.5, dash)
      if line.name then legend[#legend + 1] = { name = line.name, color = GREY, width = 1.5, dash = dash } end
    end
  end
  for i, series in ipairs(options.series) do add_series(add, series, color_of(i), frame) end

  local title, xlabel, ylabel = options.title or '', options.xlabel or '', options.ylabel or ''
  local center = (left + right) / 2
  add_text(center, top - 15, title, fitting(title, 15, right - left), 'middle')
  add_text(center, bottom + 41, xlabel, fitting(xlabel, 13, right - left), 'middle')
  add_text(offset + 20, (top + bottom) / 2, ylabel, fitting(ylabel, 13, bottom - top), 'middle', true)
  return add_legend(add, legend, left, right, bottom + 64) + 18
end

-- Marks, width and height of charts side by side.
function M.figure(charts)
  local marks, height = {}, 0
  local function add(mark) marks[#marks + 1] = mark end
  for i, options in ipairs(charts) do height = math.max(height, math.ceil(add_panel(add, options, (i - 1) * WIDTH))) end
  return marks, WIDTH * #charts, height
end

return M
