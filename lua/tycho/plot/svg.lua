-- Draws a figure's marks as SVG text: the same figure gives the same bytes. Into a file, or without a path as its result.
local file = require 'tycho.io.file'
local escape = require('tycho.io.markup').escape

local draw = {}

function draw.dot(m) return ('<circle cx="%.1f" cy="%.1f" r="%g" fill="%s"/>'):format(m.x, m.y, m.radius, m.color) end

function draw.line(m)
  local points = {}
  for i, p in ipairs(m.points) do points[i] = ('%.1f,%.1f'):format(p[1], p[2]) end
  return ('<polyline points="%s" fill="none" stroke="%s" stroke-width="%g" stroke-linejoin="round"%s/>'):format(table.concat(points, ' '),
    m.color, m.width, m.dash and (' stroke-dasharray="%g %g"'):format(m.dash[1], m.dash[2]) or '')
end

function draw.text(m)
  local turn = m.upright and (' transform="rotate(-90 %.1f %.1f)"'):format(m.x, m.y) or ''
  return ('<text x="%.1f" y="%.1f" font-size="%.3g" text-anchor="%s" fill="%s"%s>%s</text>'):format(m.x, m.y, m.size, m.anchor, m.color, turn,
    escape((m.text:gsub('%c', ' '))))
end

return function(figure, path)
  local lines = {
    ('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif">'):format(figure.width,
      figure.height, figure.width, figure.height),
    '<rect width="100%" height="100%" fill="#ffffff"/>',
  }
  for _, mark in ipairs(figure.marks) do lines[#lines + 1] = draw[mark.kind](mark) end
  lines[#lines + 1] = '</svg>\n'
  local text = table.concat(lines, '\n')
  if not path then return text end
  file.write(path, text)
end
