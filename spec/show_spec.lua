-- What is plotted in the terminal: charts in braille, histograms, images in half blocks, grids; and the same as files.
local tycho = require 'tycho'
local plot = tycho.plot
local image = require 'tycho.io.image'
local failure = require 'spec.failure'
local files = require 'spec.files'
local pty = require 'spec.pty'
local shell = require 'spec.shell'

local root = require 'lfs'.currentdir()
local folder = files.folder()

local function lines_of(text)
  local out = {}
  for line in (text .. '\n'):gmatch('([^\n]*)\n') do out[#out + 1] = line end
  return out
end
-- The dots of a chart's frame as rows of 0 and 1, from braille.
local function dots(text)
  local rows = {}
  for _, line in ipairs(lines_of(text)) do
    local frame = line:match('\226\148\130(.*)$')
    if frame then
      local top = #rows
      for k = 1, 4 do rows[top + k] = {} end
      local column = 0
      for cell in frame:gmatch('[%z\1-\127\192-\255][\128-\191]*') do
        local bits = cell == ' ' and 0 or (cell:byte(2) - 0xa0) * 64 + cell:byte(3) - 0x80
        for k, pair in ipairs { { 1, 8 }, { 2, 16 }, { 4, 32 }, { 64, 128 } } do
          for side = 1, 2 do rows[top + k][column + side] = bit.band(bits, pair[side]) > 0 and 1 or 0 end
        end
        column = column + 2
      end
    end
  end
  return rows
end

describe('a chart in the terminal', function()
  it('rises where the numbers rise, within the columns that it is given', function()
    local text = plot({ 0, 1, 2, 3 }, nil, nil):text { columns = 40, rows = 6, colors = false, plain = false }
    local heights = {}
    for row, cells in ipairs(dots(text)) do
      for column, set in ipairs(cells) do
        if set == 1 then heights[column] = math.min(heights[column] or 99, row) end
      end
    end
    local last, drawn = 99, 0
    for column = 1, 80 do
      if heights[column] then
        assert(heights[column] <= last)
        last, drawn = heights[column], drawn + 1
      end
    end
    assert(drawn > 50 and last <= 3, text)
    for _, line in ipairs(lines_of(text)) do assert(select(2, line:gsub('[^\128-\191]', '')) <= 40, line) end
  end)
  it('has round numbers at its axes, each at its place', function()
    local y = {}
    for i = 0, 100 do y[i + 1] = i / 10 end
    local lines = lines_of(plot(tycho.arange(101), y):text { columns = 53, rows = 11, colors = false, plain = true })
    -- The frame has 49 columns; its middle is the 28th of the line, and the second character of the label.
    assert.matches('^ +0 +50 +100$', lines[12])
    assert.equal(27, lines[12]:find('50', 1, true))
    local rows = {}
    for i = 1, 11 do rows[#rows + 1] = tonumber(lines[i]:match('^ *(%d+)|')) end
    assert.same({ 10, 5, 0 }, rows)
  end)
  it('leaves a gap for a NaN and takes tensors and names', function()
    local text = plot(tycho.arange(5), { curve = { 1, 1, 0 / 0, 1, 1 } }, { title = 'a title', ylim = { 0, 2 } })
      :text { columns = 43, rows = 3, colors = false, plain = false }
    assert.truthy(text:find('a title', 1, true) and text:find('curve', 1, true))
    local filled, columns = {}, 0
    for _, cells in ipairs(dots(text)) do
      columns = math.max(columns, #cells)
      for column, set in ipairs(cells) do filled[column] = filled[column] or set == 1 end
    end
    assert.is_falsy(filled[math.floor(columns / 2)])
    assert.truthy(filled[4] and filled[columns - 2])
  end)
  it('is ASCII where a terminal has nothing else', function()
    local text = plot({ 1, 2, 1 }):text { columns = 30, rows = 4, plain = true, colors = false }
    assert.truthy(text:find('*', 1, true))
    assert.falsy(text:find('[\128-\255]'))
  end)
  it('says in a sentence that there is nothing to draw', function()
    assert.equal("plot: 'series 1' has no point to draw (nothing but NaN)", failure(plot, { 0 / 0, 0 / 0 }))
    assert.equal("plot: 'series 1' has no point to draw (it is empty)", failure(plot, {}))
    assert.equal('plot: y must have one dim, got shape (2, 2)', failure(plot, tycho.ones { 2, 2 }))
    assert.equal('plot: y must be a list or a tensor, got nil', failure(plot))
    assert.equal('plot: hist: there is nothing to count (no number is finite)', failure(plot.hist, { 0 / 0 }))
    assert.equal('imshow: there is nothing to show: no number is finite', failure(plot.imshow, tycho.full({ 2, 2 }, 0 / 0)))
    assert.truthy(failure(plot.imshow, tycho.ones { 4 }):find('expected an image', 1, true))
    assert.truthy(failure(plot.imshow, tycho.ones { 0, 3 }):find('there is nothing to show', 1, true))
  end)
end)

describe('a histogram', function()
  it('counts each number once, and says what it left out', function()
    local chart = plot.hist({ 0, 0, 0, 1, 2, 2, 4, 0 / 0, 1 / 0 }, 4).charts[1]
    assert.equal('7 numbers, 2 not finite left out', chart.title)
    assert.same({ 0, 3, 3, 1, 1, 2, 2, 1, 1, 0 }, chart.series[1].y)
    assert.same({ 0, 0, 1, 1, 2, 2, 3, 3, 4, 4 }, chart.series[1].x)
  end)
end)

describe('an image', function()
  it('is two pixels a cell in half blocks', function()
    local x = tycho.tensor({ { { 255, 0, 0 }, { 0, 255, 0 } }, { { 0, 0, 255 }, { 255, 255, 255 } } }, 'u8')
    local text = plot.imshow(x):text { columns = 2, colors = true }
    assert.equal('\27[38;2;255;0;0;48;2;0;0;255m\226\150\128\27[38;2;0;255;0;48;2;255;255;255m\226\150\128\27[0m', text)
    assert.equal(' @', plot.imshow(tycho.tensor { { 0, 1 }, { 0, 1 } }):text { columns = 2, colors = false })
    local checks = tycho.tensor({ { 0, 0, 0, 0 }, { 145, 255, 145, 255 }, { 0, 0, 0, 0 }, { 145, 255, 145, 255 } }, 'u8')
    assert.equal('\27[38;2;100;100;100;48;2;100;100;100m\226\150\128', plot.imshow(checks):text({ columns = 2, colors = true }):match('^.-\128'))
    assert.equal(10, #lines_of(plot.imshow(tycho.ones { 200, 200 }):text { columns = 20, colors = false })) -- shrunk to fit
  end)
  it('and a grid of images become files', function()
    local base = folder .. '/figure'
    local channels_first = tycho.tensor { { { 0, 1 } }, { { 0, 0 } }, { { 0, 0.5 } } } -- (3,1,2)
    plot.imshow(channels_first):png(base .. '.png', 3)
    local back = image.load(base .. '.png')
    assert.same({ 3, 6, 3 }, back.shape)
    assert.same({ 0, 0, 0 }, back[1][1]:tolist())
    assert.same({ 255, 0, 128 }, back[1][4]:tolist())
    local grid = plot.grid({ tycho.zeros({ 4, 5 }, 'u8'), tycho.zeros({ 4, 5 }, 'u8'), tycho.zeros({ 4, 5 }, 'u8') }, 2)
    assert.same({ 10, 12, 3 }, grid.pixels.shape)
    grid:svg(base .. '.svg', 2)
    local svg = files.read(base .. '.svg')
    assert.truthy(svg:find('width="24" height="20"', 1, true))
    -- the PNG inside is whole
    local data = svg:match('base64,([%w+/=]+)')
    shell(('echo %s | base64 -d > %s.png'):format(data, base))
    assert.same({ 10, 12 }, { image.size(base .. '.png') })
  end)
end)

describe('the prompt', function()
  it('shows charts and images, in colours where there are some', function()
    local p = pty.start(('cd %s && HOME=/nonexistent TERM=xterm exec ./tycho'):format(root), { columns = 40, rows = 24 })
    p:expect '1> '
    p:send 'plot{1, 2, 3}\r'
    p:expect '\226\148\130'
    p:expect '2> '
    p:send 'hist(tycho.arange(100))\r'
    p:expect '100 numbers'
    p:send 'imshow(tycho.arange(64):reshape{8, 8})\r'
    p:expect '\27[38;2;0;0;0;48;2;'
    p:send 'plot{0/0}\r'
    p:expect 'has no point to draw'
    p:expect '5> '
    p:send '\4'
    assert.equal(0, (p:finish()))
  end)
end)
