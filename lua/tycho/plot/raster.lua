-- Draws a figure's marks into pixels, with anti-aliased lines and the stroke font, and saves them as PNG.
local tensor = require 'tycho.tensor'
local font = require 'tycho.plot.font'
local image = require 'tycho.io.image'

local CAPITAL = 0.72 -- height of a capital, of the font size
local DASH, GAP = 6, 4

local function rgb(color)
  return tonumber(color:sub(2, 3), 16), tonumber(color:sub(4, 5), 16), tonumber(color:sub(6, 7), 16)
end

local Canvas = {}
Canvas.__index = Canvas

function Canvas:blend(x, y, r, g, b, share)
  local p = self.pixels + (y * self.width + x) * 3
  p[0] = p[0] + (r - p[0]) * share + 0.5
  p[1] = p[1] + (g - p[1]) * share + 0.5
  p[2] = p[2] + (b - p[2]) * share + 0.5
end

-- A segment with round ends; a pixel is covered by how far it lies inside the stroke.
function Canvas:segment(x1, y1, x2, y2, width, r, g, b)
  local reach = width / 2 + 1
  local dx, dy = x2 - x1, y2 - y1
  local length2 = dx * dx + dy * dy
  for y = math.max(0, math.floor(math.min(y1, y2) - reach)), math.min(self.height - 1, math.ceil(math.max(y1, y2) + reach)) do
    for x = math.max(0, math.floor(math.min(x1, x2) - reach)), math.min(self.width - 1, math.ceil(math.max(x1, x2) + reach)) do
      local px, py = x + 0.5 - x1, y + 0.5 - y1
      local t = length2 > 0 and math.max(0, math.min(1, (px * dx + py * dy) / length2)) or 0
      local distance = math.sqrt((px - t * dx) ^ 2 + (py - t * dy) ^ 2)
      local share = math.min(1, width / 2 + 0.5 - distance)
      if share > 0 then self:blend(x, y, r, g, b, share) end
    end
  end
end

local draw = {}

function draw.rect(canvas, m, scale)
  local r, g, b = rgb(m.color)
  local y = (m.y + m.height / 2) * scale
  canvas:segment((m.x + m.width / 2) * scale, y, (m.x + m.width / 2) * scale, y, m.width * scale, r, g, b)
end

local function dashes(canvas, p, q, width, r, g, b, scale)
  local dx, dy = q[1] - p[1], q[2] - p[2]
  local length = math.sqrt(dx * dx + dy * dy)
  for at = 0, length, DASH + GAP do
    local stop = math.min(at + DASH, length)
    canvas:segment((p[1] + dx * at / length) * scale, (p[2] + dy * at / length) * scale, (p[1] + dx * stop / length) * scale,
      (p[2] + dy * stop / length) * scale, width, r, g, b)
  end
end

function draw.line(canvas, m, scale)
  local r, g, b = rgb(m.color)
  for i = 1, #m.points - 1 do
    local p, q = m.points[i], m.points[i + 1]
    if m.dashed then
      dashes(canvas, p, q, m.width * scale, r, g, b, scale)
    else
      canvas:segment(p[1] * scale, p[2] * scale, q[1] * scale, q[2] * scale, m.width * scale, r, g, b)
    end
  end
end

function draw.text(canvas, m, scale)
  local r, g, b = rgb(m.color)
  local unit = m.size * CAPITAL / font.HEIGHT
  local advance = font.ADVANCE * unit
  local shift = ({ start = 0, middle = -0.5, ['end'] = -1 })[m.anchor] * (#m.text * advance - 1.6 * unit)
  for i = 1, #m.text do
    for _, stroke in ipairs(font.strokes(m.text:sub(i, i))) do
      local points = {}
      for j, p in ipairs(stroke) do
        local along, up = shift + (i - 1) * advance + p[1] * unit, (p[2] - font.HEIGHT) * unit
        points[j] = m.upright and { (m.x + up) * scale, (m.y - along) * scale } or { (m.x + along) * scale, (m.y + up) * scale }
      end
      for j = 1, #points - 1 do
        canvas:segment(points[j][1], points[j][2], points[j + 1][1], points[j + 1][2], math.max(1, m.size / 11 * scale), r, g, b)
      end
    end
  end
end

-- scale: pixels per unit of the figure.
return function(figure, path, scale)
  local width, height = math.floor(figure.width * scale), math.floor(figure.height * scale)
  local pixels = tensor.full({ height, width, 3 }, 255, 'u8')
  local canvas = setmetatable({ pixels = pixels:ptr(), width = width, height = height }, Canvas)
  for _, mark in ipairs(figure.marks) do draw[mark.kind](canvas, mark, scale) end
  image.save(path, pixels)
end
