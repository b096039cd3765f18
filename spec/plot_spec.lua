-- Charts: ticks, gaps, clipping, error bars, legends, escaping, files and errors.
local lfs = require 'lfs'
local plot = require 'tycho.plot'
local font = require 'tycho.plot.font'
local image = require 'tycho.io.image'
local failure = require 'spec.failure'
local says = require 'spec.says'
local files = require 'spec.files'

local nan = 0 / 0

local function one(series, changes)
  local options = { series = { series }, xlim = { 0, 4 }, ylim = { 0, 1 } }
  for key, value in pairs(changes or {}) do options[key] = value end
  return plot.lines(options)
end

local function marks_of(figure, kind, test)
  local out = {}
  for _, mark in ipairs(figure.marks) do
    if mark.kind == kind and test(mark) then out[#out + 1] = mark end
  end
  return out
end
local function curves(figure) return marks_of(figure, 'line', function(m) return m.width == 2.5 end) end
local function dots(figure) return marks_of(figure, 'dot', function() return true end) end
local function dashed(figure) return marks_of(figure, 'line', function(m) return m.dash end) end
local function bars(figure) return marks_of(figure, 'line', function(m) return m.width == 1.5 and not m.dash end) end

-- left, top, right, bottom, from the two lines of the axes.
local function frame(figure)
  local axes = marks_of(figure, 'line', function(m) return m.color == '#222222' end)
  local upright, level = axes[#axes - 1].points, axes[#axes].points
  return upright[1][1], upright[1][2], level[2][1], level[2][2]
end

local function texts(figure)
  local out = {}
  for _, mark in ipairs(figure.marks) do
    if mark.text then out[mark.text] = mark end
  end
  return out
end

local folder = files.folder()
local function svg_of(figure)
  figure:svg(folder .. '/figure.svg')
  return files.read(folder .. '/figure.svg')
end

-- Elements nest and close, attributes are quoted, & begins an entity, < stands only before a tag.
local function assert_well_formed(text)
  local open, rest = {}, text
  while #rest > 0 do
    local words, tag, after = rest:match('^([^<]*)(%b<>)(.*)$')
    if not tag then
      assert.truthy(rest:match('^%s*$'), rest)
      break
    end
    for entity in words:gmatch('&([^;]*;?)') do assert.truthy(('amp; lt; gt; quot;'):find(entity, 1, true), entity) end
    local slash, name, attributes, empty = tag:match('^<(/?)(%w+)(.-)(/?)>$')
    assert.truthy(name, tag)
    assert.equal('', (attributes:gsub('%s+[%w%-]+="[^"<&]*"', '')))
    if slash == '/' then
      assert.equal(table.remove(open), name)
    elseif empty == '' then
      open[#open + 1] = name
    end
    rest = after
  end
  assert.same({}, open)
end

describe('plot', function()
  it('puts ticks on round numbers', function()
    local function joined(...) return table.concat((plot.ticks(...)), ' ') end
    assert.equal('0 20 40 60 80 100', joined(0, 100, 6))
    assert.equal('-0.2 0 0.2 0.4 0.6 0.8 1', joined(-0.3, 1, 7))
    assert.equal('1000 2000 3000', joined(900, 3100, 3))
    assert.equal('-5 0 5', joined(-7, 7, 3))
    assert(#plot.ticks(0.3, 0.1 + 0.2, 4) < 10 and #plot.ticks(1e17, 1e17 + 16, 4) < 10) -- whose numbers of steps no two neighbours have
    for _, pair in ipairs { { 0.3, 0.1 + 0.2 }, { 1e17, 1e17 + 16 }, { 5e-324, 1e-323 } } do assert.truthy(tostring(plot(pair)):find '0%.5') end
  end)

  it('writes tick labels with one notation an axis', function()
    local small = texts(one({ x = { 0, 4 }, y = { 0, 1 } }, { ylim = { -0.3, 1 } }))
    assert(small['-0.2'] and small['0.0'] and small['1.0'] and not small['-0.0'])
    local large = texts(one({ x = { 0, 4 }, y = { 0, 1 } }, { ylim = { 0, 210000 } }))
    assert(large['0'] and large['50000'] and large['200000'])
    local huge = texts(one({ x = { 0, 4 }, y = { 0, 1 } }, { ylim = { 0, 5e6 } }))
    assert(huge['0'] and huge['1e6'] and huge['5e6'])
  end)

  it('labels positions as asked and leaves out those beyond xlim', function()
    local found = texts(one({ x = { 1, 2 }, y = { 0, 1 } }, { x_ticks = { positions = { 1, 2, 9 }, labels = { 'none', 30, 'far' } } }))
    assert(found.none and found['30'] and not found.far)
    assert(found.none.x < found['30'].x)
  end)

  it('leaves gaps at what is no number, or too large to have an extent', function()
    local series = { x = { 1, 2, 'x', -1e308, 3, 4 }, y = { 1, {}, 1, 1, 1e308, 2 } }
    assert.equal(2, #dots(plot.lines { series = { series } }))
    assert.truthy(plot.lines({ series = { series } }):text { columns = 40, rows = 5 })
  end)
  it('leaves a gap at a NaN and shows a point alone between two', function()
    local figure = one { x = { 0, 1, 2, 3, 4 }, y = { 0.1, 0.2, nan, 0.3, nan } }
    assert.equal(1, #curves(figure))
    assert.equal(2, #curves(figure)[1].points)
    assert.equal(3, #dots(figure))
  end)

  it('draws a long line without dots', function()
    local x, y = {}, {}
    for i = 1, 200 do x[i], y[i] = i / 50, i % 2 end
    local figure = one { x = x, y = y, name = 'many' }
    assert.equal(0, #dots(figure))
    assert.equal(200, #curves(figure)[1].points)
  end)

  it('cuts lines off at the frame instead of bending them', function()
    local figure = one { x = { 0, 1, 2, 3, 9 }, y = { 0.5, 1.5, 0.5, 0.5, 0.5 } }
    local left, top, right, bottom = frame(figure)
    local lines = curves(figure)
    assert.equal(2, #lines)
    local across = lines[1].points[2]
    assert.near(top, across[2], 1e-9)
    assert.near(left + (right - left) / 8, across[1], 1e-9) -- y = 1 is passed at x = 0.5
    assert.near(right, lines[2].points[#lines[2].points][1], 1e-9)
    for _, line in ipairs(lines) do
      for _, p in ipairs(line.points) do
        assert(p[1] >= left - 1e-9 and p[1] <= right + 1e-9 and p[2] >= top - 1e-9 and p[2] <= bottom + 1e-9)
      end
    end
    assert.equal(3, #dots(figure))
    assert.equal(0, #curves(one { x = { 0, 1 }, y = { 2, 3 } }))
  end)

  it('draws error bars, cut off at the frame', function()
    local figure = one { x = { 1, 2, 3 }, y = { 0.5, 0.9, 0.5 }, yerr = { 0.25, 0.3, nan } }
    local _, top, _, bottom = frame(figure)
    local found = bars(figure)
    assert.equal(2, #found)
    assert.near((bottom - top) / 2, math.abs(found[1].points[1][2] - found[1].points[2][2]), 1e-9)
    assert.near(top, math.min(found[2].points[1][2], found[2].points[2][2]), 1e-9)
  end)

  it('draws horizontal lines dashed, each in its own way, and names those in sight', function()
    local hlines = { { y = 0.2, name = 'floor' }, { y = 0.7, name = 'goal' }, { y = 3, name = 'out' } }
    local figure = one({ x = { 0, 4 }, y = { 0, 1 } }, { hlines = hlines })
    local found = dashed(figure)
    assert.equal(4, #found) -- two in the frame, two in the legend
    assert.not_same(found[1].dash, found[2].dash)
    local names = texts(figure)
    assert(names.floor and names.goal and not names.out)
    local _, top, _, bottom = frame(figure)
    assert.near(bottom - 0.2 * (bottom - top), found[1].points[1][2], 1e-9)
  end)

  it('takes error bars and horizontal lines into automatic limits', function()
    local figure = plot.lines { series = { { x = { 1, 2 }, y = { 1, 2 }, yerr = { 3, 0 } } }, hlines = { { y = 7, name = 'goal' } } }
    local found = texts(figure)
    assert(found['-2'] and found.goal)
    assert(plot.lines { series = { { x = { 1 }, y = { 1e20 } } } })
  end)

  it('keeps the legend below the axes and inside the panel', function()
    local series = {}
    for i = 1, 7 do series[i] = { name = ('a rather long name '):rep(i), x = { 1, 2 }, y = { i, i + 1 } } end
    local figure = plot.lines { series = series }
    local _, _, _, bottom = frame(figure)
    for _, mark in pairs(marks_of(figure, 'text', function(m) return m.anchor == 'start' end)) do
      assert(mark.y > bottom + 40 and mark.y < figure.height)
      local _, columns = font.strokes(mark.text)
      assert(mark.x + columns * mark.size * 0.72 / font.HEIGHT <= figure.width)
    end
  end)

  it('sets charts side by side, given as options or made before', function()
    local options = { title = 'left', series = { { x = { 1, 2 }, y = { 1, 2 } } } }
    local single = plot.lines { title = 'right', series = { { x = { 1, 2 }, y = { 1, 2 } } } }
    local pair = plot.panels { options, single }
    assert.equal(2 * single.width, pair.width)
    local found = texts(pair)
    assert(found.left.x < single.width and found.right.x > single.width)
  end)

  it('has a glyph for every printable character', function()
    for code = 32, 126 do assert(font.has(string.char(code)), string.char(code)) end
    for _, sign in ipairs { '²', '×', '°', '±', '–', '−', 'µ' } do assert(font.has(sign), sign) end
    local strokes, width = font.strokes('R²')
    assert(#strokes == 3 and width > 4)
    local _, none = font.strokes('')
    assert.equal(0, none)
  end)

  it('writes well-formed SVG, the same each time', function()
    local function figure()
      return one({ name = '<b> & "c"\n', x = { 0, 1, 2, 3 }, y = { 0.1, nan, 5, 0.3 } },
        { title = 'a < b & c', ylabel = 'R²', hlines = { { y = 0, name = '>' } } })
    end
    local text = svg_of(figure())
    assert_well_formed(text)
    assert.truthy(text:find('>a &lt; b &amp; c</text>', 1, true))
    assert.truthy(text:find('&lt;b&gt; &amp; &quot;c&quot; </text>', 1, true))
    assert.truthy(text:match('^<svg xmlns="http://www.w3.org/2000/svg"') and text:match('</svg>\n$'))
    assert.falsy(text:find('nan', 1, true) or text:find('inf', 1, true))
    assert.equal(text, svg_of(figure()))
  end)

  it('writes PNG of the figure\'s size', function()
    local path = folder .. '/figure.png'
    local figure = plot.panels { { series = { { x = { 1, 2 }, y = { 1, 2 } } } }, { series = { { x = { 1, 2 }, y = { 1, 2 } } } } }
    for _, scale in ipairs { 1, 2 } do
      figure:png(path, scale)
      local height, width = image.size(path)
      assert.same({ figure.height * scale, figure.width * scale }, { height, width })
    end
    local pixels, dot = image.load(path), dots(figure)[1]
    assert.same({ 255, 255, 255 }, pixels[0][0]:tolist())
    assert.same({ 0x00, 0x72, 0xb2 }, pixels[math.floor(dot.y * 2)][math.floor(dot.x * 2)]:tolist())
    assert.equal('\137PNG\r\n\26\n', files.read(path):sub(1, 8))
  end)

  it('leaves nothing behind where it cannot write', function()
    local nowhere = folder .. '/nowhere'
    local figure = one { x = { 0, 4 }, y = { 0, 1 } }
    assert.is_false(pcall(figure.svg, figure, nowhere .. '/a.svg'))
    assert.is_false(pcall(figure.png, figure, nowhere .. '/a.png'))
    assert.is_nil(lfs.attributes(nowhere))
  end)

  it('says what it cannot draw in one sentence', function()
    local good = { x = { 1, 2 }, y = { 1, 2 } }
    for _, case in ipairs {
      { {}, 'expected series' },
      { { series = {} }, 'expected series' },
      { { series = { { x = { 1 }, y = { 1 } } }, tittle = 'a' }, "plot: unknown option 'tittle'; did you mean 'title'?" },
      { { series = { good, 7 } }, 'series 2 must be a table' },
      { { series = { good, { y = { 1 } } } }, "'series 2' needs lists x and y, got nil and table" },
      { { series = { { name = 'empty', x = {}, y = {} } } }, "'empty' has no point to draw (it is empty)" },
      { { series = { { name = 'hollow', x = { 1 }, y = { nan } } } }, "'hollow' has no point to draw (nothing but NaN)" },
      { { series = { { name = 'odd', x = { 1, 2 }, y = { 1 } } } }, "'odd' needs lists x and y of equal length, got 2 and 1" },
      { { series = { { name = 'bars', x = { 1 }, y = { 1 }, yerr = {} } } }, "'bars' needs as many values in yerr as in y" },
      { { series = { good }, ylim = { 1, 1 } }, 'ylim must be {low, high}' },
      { { series = { good }, xlim = { 1 } }, 'xlim must be {low, high}' },
      { { series = { good }, x_ticks = { positions = { 1 }, labels = {} } }, 'x_ticks must be' },
      { { series = { good }, hlines = { { name = 'floor', y = nan } } }, "'floor' needs a finite y, got " },
    } do
      local message = failure(plot.lines, case[1])
      says(message, 'plot: ', case[2])
      assert.falsy(message:find('\n', 1, true))
    end
    assert.error_matches(function() plot.panels {} end, 'at least one chart')
    assert.error_matches(function() plot.lines({ series = { good } }):png('a.txt') end, 'a.txt must end in .png', 1, true)
    assert.error_matches(function() plot.lines({ series = { good } }):png('a.png', 0) end, 'scale must be a number > 0')
  end)
end)
