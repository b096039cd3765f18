-- Charts: ticks, gaps, clipping, escaping, files and errors.
local plot = require 'tycho.plot'
local image = require 'tycho.io.image'

local function chart(changes)
  local options = { title = 'a < b & c', series = { { name = 'one', x = { 1, 2, 3, 4 }, y = { 0.1, 0 / 0, 5, 0.3 } } }, ylim = { 0, 1 } }
  for key, value in pairs(changes or {}) do options[key] = value end
  return plot.lines(options)
end
local function read(path)
  local file = assert(io.open(path, 'rb'))
  local text = file:read('*a')
  file:close()
  os.remove(path)
  return text
end

describe('plot', function()
  it('puts ticks on round numbers', function()
    local function joined(...) return table.concat((plot.ticks(...)), ' ') end
    assert.equal('0 20 40 60 80 100', joined(0, 100, 6))
    assert.equal('-0.2 0 0.2 0.4 0.6 0.8 1', joined(-0.3, 1, 7))
    assert.equal('1000 2000 3000', joined(900, 3100, 3))
  end)
  it('leaves a gap at a NaN and cuts at the frame', function()
    local lines, lowest = 0, math.huge
    for _, mark in ipairs(chart().marks) do
      if mark.kind == 'line' and mark.width == 2.5 and #mark.points == 2 and not mark.dashed then
        lines = lines + 1
        lowest = math.min(lowest, mark.points[1][2])
      end
    end
    assert.equal(2, lines) -- points 3 to 4, and the legend
    assert.equal(36, lowest) -- y = 5 drawn at the top of the frame
  end)
  it('draws error bars and makes room for a long legend', function()
    local series = {}
    for i = 1, 5 do series[i] = { name = 'a rather long name', x = { 1, 2 }, y = { i, i + 1 } } end
    series[1].yerr = { 2, 0 / 0 }
    local figure, plain = plot.lines { series = series }, chart()
    local bars, right = 0, 0
    for _, mark in ipairs(figure.marks) do
      if mark.kind == 'line' and mark.width == 1.5 then bars = bars + 1 end
      if mark.kind == 'text' and mark.anchor == 'start' then right = math.max(right, mark.x + 7.2 * #mark.text) end
    end
    assert.equal(1, bars)
    assert(right <= figure.width and figure.height > plain.height)
  end)
  it('writes SVG with escaped text', function()
    local path = os.tmpname()
    chart():svg(path)
    local text = read(path)
    assert.truthy(text:find('a &lt; b &amp; c', 1, true))
    assert.truthy(text:match('^<svg xmlns') and text:match('</svg>\n$'))
    assert.falsy(text:find('nan', 1, true))
  end)
  it('writes PNG of the figure\'s size', function()
    local path = os.tmpname()
    os.remove(path)
    path = path .. '.png'
    plot.panels({ { series = { { x = { 1, 2 }, y = { 1, 2 } } } }, { series = { { x = { 1, 2 }, y = { 1, 2 } } } } }):png(path, 1)
    local height, width = image.size(path)
    assert.same({ 340, 920 }, { height, width })
    local pixels = image.load(path)
    assert.equal(255, pixels[0][0][0]:item())
    assert(pixels:to('f32'):mean():item() < 255)
    os.remove(path)
  end)
  it('says what it cannot draw', function()
    for _, case in ipairs {
      { { series = {} }, 'expected series' },
      { { series = { { name = 'empty', x = {}, y = {} } } }, "'empty' has no point to draw" },
      { { series = { { name = 'nan', x = { 1 }, y = { 0 / 0 } } } }, "'nan' has no point to draw" },
      { { series = { { name = 'odd', x = { 1, 2 }, y = { 1 } } } }, "'odd' needs lists x and y of equal length" },
    } do
      local ok, message = pcall(chart, case[1])
      assert.is_false(ok)
      assert(message:find(case[2], 1, true), message)
    end
  end)
end)
