-- Draws a figure's marks as SVG text.
local file = require 'tycho.io.file'

local function escape(text)
  return (text:gsub('[&<>"]', { ['&'] = '&amp;', ['<'] = '&lt;', ['>'] = '&gt;', ['"'] = '&quot;' }))
end

local draw = {}

function draw.rect(m)
  return ('<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>'):format(m.x, m.y, m.width, m.height, m.color)
end

function draw.line(m)
  local points = {}
  for i, p in ipairs(m.points) do points[i] = ('%.1f,%.1f'):format(p[1], p[2]) end
  return ('<polyline points="%s" fill="none" stroke="%s" stroke-width="%g" stroke-linejoin="round"%s/>'):format(table.concat(points, ' '),
    m.color, m.width, m.dashed and ' stroke-dasharray="6 4"' or '')
end

function draw.text(m)
  local turn = m.upright and (' transform="rotate(-90 %.1f %.1f)"'):format(m.x, m.y) or ''
  return ('<text x="%.1f" y="%.1f" font-size="%g" text-anchor="%s" fill="%s"%s>%s</text>'):format(m.x, m.y, m.size, m.anchor, m.color, turn,
    escape(m.text))
end

return function(figure, path)
  local lines = {
    ('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif">'):format(figure.width,
      figure.height, figure.width, figure.height),
    '<rect width="100%" height="100%" fill="#ffffff"/>',
  }
  for _, mark in ipairs(figure.marks) do lines[#lines + 1] = draw[mark.kind](mark) end
  lines[#lines + 1] = '</svg>\n'
  file.write(path, function(out) out:write(table.concat(lines, '\n')) end)
end
