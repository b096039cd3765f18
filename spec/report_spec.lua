-- report.html: everything of a run in one page, which a real browser shows.
local tycho = require 'tycho'
local image = require 'tycho.io.image'
local report = require 'tycho.runs.report'
local files = require 'spec.files'
local says = require 'spec.says'
local shell = require 'spec.shell'

local folder = files.folder()
local read = files.read

local write = files.inside(folder)

local function make()
  os.execute(('rm -rf %s/* '):format(folder))
  write('config.yml', 'learning_rate: 0.03\nname: "<b>bold</b> & co"\n')
  local rows = {}
  for i = 1, 5 do
    rows[i] = ('{"epoch":%d,"iteration":%d,"loss":%g,"bad":"nan","r2/c0":%g,"r2/c2":%g}\n'):format(i, i, 4 - i / 2, i / 5, i / 6)
  end
  write('metrics.jsonl', table.concat(rows))
  write('status.json', '{"status":"finished"}')
  write('arguments.txt', 'epochs=5\n')
  write('train.log', 'started\ntrained 5 steps\n')
  write('results.json', '{"rows":[{"embedding":"z+","context":2,"rotation_r2":0.875},{"embedding":"z+","context":30,"rotation_r2":0.25}]}')
  image.save(folder .. '/near.jpg', tycho.full({ 40, 60, 3 }, 128, 'u8'))
  report.add_figure(folder, 'near.jpg', 'old words')
  report.add_figure(folder, 'near.jpg', 'Neighbours & <friends>')
  report.add_figure(folder, 'gone.png', 'never there')
end

describe('a report', function()
  before_each(make)

  it('holds metrics, curves, results, settings, pictures and the log, and refers to nothing outside', function()
    local page = read(report.write(folder))
    says(page, 'finished, 5 epochs', '<td>loss</td><td class="number">1.5</td><td class="number">1.5</td><td class="number">3.5</td>',
      '<td class="number">0.875</td>', '<td>learning_rate</td><td>0.03</td>', '&lt;b&gt;bold&lt;/b&gt; &amp; co', 'trained 5 steps', 'epochs=5',
      '<figcaption>Neighbours &amp; &lt;friends&gt;</figcaption>', '<td>bad</td><td class="number">nan</td>', '>r2</text>', '>loss</text>')
    assert.equal(2, select(2, page:gsub('<svg ', '')))
    assert.equal(1, select(2, page:gsub('<img ', '')))
    assert(not page:find('never there', 1, true) and not page:find('old words', 1, true) and not page:find('<script', 1, true))
    local outside = page:gsub('http://www%.w3%.org/2000/svg', '')
    assert(not outside:find('http', 1, true) and not outside:find('src="[^d]') and not outside:find('url(', 1, true))
    assert(#page < 60000)
  end)

  it('encodes bytes as RFC 4648 does', function()
    for plain, code in pairs { [''] = '', f = 'Zg==', fo = 'Zm8=', foo = 'Zm9v', foobar = 'Zm9vYmFy', ['\255\254\253\0'] = '//79AA==' } do
      assert.equal(code, require('tycho.io.markup').base64(plain))
    end
  end)

  it('is made of what is there where files hold something else', function()
    write('metrics.jsonl', '[1,2]\n{"epoch":"x","loss":1e308}\n{"epoch":"nan","loss":2}\n')
    write('results.json', '{"rows":[3,[5,6],{"kept":7}]}')
    write('figures.json', '[3,[4],{"file":{}}]')
    write('status.json', '{"status":"failed","message":{"a":1}}')
    says(read(report.write(folder)), 'failed, 2 epochs; metrics.jsonl: 1 of 3 lines cannot be read', '<td class="number">7</td>', '>loss</text>')
    for _, name in ipairs { 'results.json', 'figures.json' } do write(name, '5') end
    report.add_figure(folder, 'near.jpg', 'words')
    says(read(report.write(folder)), '<figcaption>words</figcaption>')
  end)

  it('is made of what is there when files are damaged or absent', function()
    write('metrics.jsonl', '{"epoch":1,"loss":2}\n{"ep')
    write('results.json', '{')
    write('figures.json', '[{]')
    os.remove(folder .. '/config.yml')
    local page = read(report.write(folder))
    says(page, 'there is no config.yml', '<td>loss</td>')
    write('metrics.jsonl', '[1,2]\nnull\n{"epoch":1,"loss":2}\n')
    says(read(report.write(folder)), 'finished, 1 epochs', '<td>loss</td>')
    write('metrics.jsonl', '')
    says(read(report.write(folder)), 'finished, 0 epochs')
    for _, text in ipairs { '5', '[5,[1],{}]', '{"rows":5}', '{"rows":[5,[1,2],{"a":1}]}' } do
      write('results.json', text)
      write('figures.json', text)
      says(read(report.write(folder)), 'finished, 0 epochs')
      report.add_figure(folder, 'near.jpg', 'words')
      says(read(report.write(folder)), '<figcaption>words</figcaption>')
    end
    says(read(report.write(folder)), '<td class="number">1</td>')
  end)

  it('is shown by a browser: curves and pictures have a size, and nothing is wider than the window', function()
    if os.execute('chromium --version >/dev/null 2>&1') ~= 0 then return pending 'chromium is not installed' end
    local page = read(report.write(folder))
    write('probe.html', (page:gsub('</body>', function()
      return [[<script>
        addEventListener('load', () => {
          const sizes = tag => [...document.querySelectorAll(tag)].map(e => Math.round(e.getBoundingClientRect().width)).join(',');
          const natural = [...document.images].map(i => i.naturalWidth + 'x' + i.naturalHeight).join(',');
          const fits = document.documentElement.scrollWidth <= innerWidth;
          const font = getComputedStyle(document.body).fontSize;
          document.body.append('PROBE svg=' + sizes('svg') + ' img=' + natural + ' fits=' + fits + ' fonts=' + font + ' END');
        });
      </script></body>]]
    end)))
    for _, width in ipairs { 1100, 500 } do
      local dom = shell(('timeout 60 chromium --headless --no-sandbox --disable-gpu --window-size=%d,900 --virtual-time-budget=2000 --dump-dom '
        .. 'file://%s/probe.html 2>/dev/null'):format(width, folder))
      local svg, natural, fits, size = dom:match('PROBE svg=(%S*) img=(%S*) fits=(%S*) fonts=(%S*) END')
      assert(svg, 'the browser did not show the page')
      assert(width == 500 and svg:match '^4%d%d,4%d%d$' or svg == '460,460', svg)
      assert.equal('60x40', natural)
      assert.equal('true', fits)
      assert.equal('15px', size)
    end
  end)
end)
