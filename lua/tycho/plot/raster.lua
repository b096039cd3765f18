-- Draws a figure's marks into pixels, with anti-aliased strokes and the stroke font, and saves them as PNG.
local tensor = require 'tycho.tensor'
local font = require 'tycho.plot.font'
local image = require 'tycho.io.image'

local floor, ceil, max, min, sqrt = math.floor, math.ceil, math.max, math.min, math.sqrt
local CAPITAL = 0.72 -- height of a capital, of the font size
local WEIGHT = 1 / 10.5 -- width of a letter's stroke, of the font size
local SHIFT = { start = 0, middle = -0.5, ['end'] = -1 } -- of a text's width

local Canvas = {}
Canvas.__index = Canvas

-- A segment with round ends, in pixels; a pixel is covered by how far it lies inside the stroke.
function Canvas:segment(x1, y1, x2, y2, width, color)
  local reach = width / 2 + 1
  local dx, dy = x2 - x1, y2 - y1
  local length2 = dx * dx + dy * dy
  local r, g, b = unpack(color)
  for y = max(0, floor(min(y1, y2) - reach)), min(self.height - 1, ceil(max(y1, y2) + reach)) do
    for x = max(0, floor(min(x1, x2) - reach)), min(self.width - 1, ceil(max(x1, x2) + reach)) do
      local px, py = x + 0.5 - x1, y + 0.5 - y1
      local t = length2 > 0 and max(0, min(1, (px * dx + py * dy) / length2)) or 0
      local distance = sqrt((px - t * dx) ^ 2 + (py - t * dy) ^ 2)
      local share = min(1, width / 2 + 0.5 - distance)
      if share > 0 then
        local p = self.pixels + (y * self.width + x) * 3
        p[0] = p[0] + (r - p[0]) * share + 0.5
        p[1] = p[1] + (g - p[1]) * share + 0.5
        p[2] = p[2] + (b - p[2]) * share + 0.5
      end
    end
  end
end

function Canvas:polyline(points, width, color)
  for i = 1, #points - 1 do
    local p, q = points[i], points[i + 1]
    self:segment(p[1], p[2], q[1], q[2], width, color)
  end
end

local draw = {}

function draw.dot(canvas, m, scale, color)
  canvas:segment(m.x * scale, m.y * scale, m.x * scale, m.y * scale, 2 * m.radius * scale, color)
end

-- Only straight lines of two points are dashed. Round ends lengthen a dash by its width, so it is drawn that much shorter.
local function dashed(canvas, m, scale, color)
  local p, q = m.points[1], m.points[2]
  local dx, dy = q[1] - p[1], q[2] - p[2]
  local length = sqrt(dx * dx + dy * dy)
  local on, off = m.dash[1], m.dash[2]
  local function at(distance) return { (p[1] + dx * distance / length) * scale, (p[2] + dy * distance / length) * scale } end
  for start = 0, length - m.width, on + off do
    canvas:polyline({ at(start + m.width / 2), at(min(start + max(on - m.width / 2, m.width / 2), length - m.width / 2)) }, m.width * scale, color)
  end
end

function draw.line(canvas, m, scale, color)
  if m.dash then return dashed(canvas, m, scale, color) end
  local points = {}
  for i, p in ipairs(m.points) do points[i] = { p[1] * scale, p[2] * scale } end
  canvas:polyline(points, m.width * scale, color)
end

function draw.text(canvas, m, scale, color)
  local strokes, width = font.strokes(m.text)
  local unit = m.size * CAPITAL / font.HEIGHT
  local shift = SHIFT[m.anchor] * width
  for _, stroke in ipairs(strokes) do
    local points = {}
    for i, p in ipairs(stroke) do
      local along, down = (p[1] + shift) * unit, (p[2] - font.HEIGHT) * unit
      points[i] = m.upright and { (m.x + down) * scale, (m.y - along) * scale } or { (m.x + along) * scale, (m.y + down) * scale }
    end
    canvas:polyline(points, max(1, m.size * WEIGHT * scale), color)
  end
end

local function rgb(color) return { tonumber(color:sub(2, 3), 16), tonumber(color:sub(4, 5), 16), tonumber(color:sub(6, 7), 16) } end

-- scale: pixels per unit of the figure.
return function(figure, path, scale)
  local width, height = floor(figure.width * scale), floor(figure.height * scale)
  local pixels = tensor.full({ height, width, 3 }, 255, 'u8')
  local canvas = setmetatable({ pixels = pixels:ptr(), width = width, height = height }, Canvas)
  for _, mark in ipairs(figure.marks) do draw[mark.kind](canvas, mark, scale, rgb(mark.color)) end
  image.save(path, pixels)
end
