-- The grammar of settings: YAML defaults, key=value arguments, and what is said about mistakes.
local config = require 'tycho.config'

local files = {}
local function yaml(text, name)
  local path = name or os.tmpname()
  local file = assert(io.open(path, 'w'))
  file:write(text)
  file:close()
  files[#files + 1] = path
  return path
end
local defaults = yaml [[
# Settings of a spec.
epochs: 10          # passes over the data
lr: 1e-3            # step size
name: run
ratio: [0.5, 0.5]   # probabilities
flag: False
nothing: null
data_dir: <PATH_TO_DATA>
group:
  inner: 1
]]
local function load(...) return config.load(defaults, { ... }) end
local function refuses(text, fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok)
  assert(message:find(text, 1, true), message)
  assert.falsy(message:find('\n'), message)
end

describe('settings', function()
  teardown(function()
    for _, path in ipairs(files) do os.remove(path) end
  end)

  it('come from YAML', function()
    local c = load()
    assert.same({ 10, 1e-3, 'run', { 0.5, 0.5 }, false, 1 }, { c.epochs, c.lr, c.name, c.ratio, c.flag, c.group.inner })
    assert.is_nil(c.nothing)
  end)
  it('are changed by key=value as Hydra reads them', function()
    local cases = {
      { 'epochs=1_000', 'epochs', 1000 }, { 'lr=5e-5', 'lr', 5e-5 }, { 'lr=inf', 'lr', math.huge }, { 'flag=TRUE', 'flag', true },
      { 'name=a b', 'name', 'a b' }, { "name='1'", 'name', '1' }, { 'name="x=y"', 'name', 'x=y' }, { 'name=', 'name', '' },
      { 'ratio=[0.1, 0.9]', 'ratio', { 0.1, 0.9 } }, { 'ratio=[]', 'ratio', {} }, { 'nothing=3', 'nothing', 3 },
    }
    for _, case in ipairs(cases) do assert.same(case[3], load(case[1])[case[2]], case[1]) end
    assert.equal(7, load('group.inner=7').group.inner)
    assert.equal(3, load('epochs=2', 'epochs=3').epochs)
    assert.equal('v', load('+new=v').new)
    assert.equal(4, load('++epochs=4').epochs)
    assert.is_nil(load('~name').name)
  end)
  it('ignore a blank argument after a line-ending backslash', function()
    local stderr = io.stderr
    io.stderr = assert(io.open('/dev/null', 'w')) -- luacheck: ignore 122
    local c = load(' ', 'epochs=5')
    io.stderr = stderr -- luacheck: ignore 122
    assert.equal(5, c.epochs)
  end)
  it('name the nearest key and where it stands', function()
    refuses("unknown key 'epoch'; did you mean 'epochs'", load, 'epoch=3')
    refuses(':2)', load, 'epoch=3')
    refuses("unknown key 'group.iner'; did you mean 'group.inner'", load, 'group.iner=3')
  end)
  it('refuse another type', function()
    refuses('epochs must be a number, got ten', load, 'epochs=ten')
    refuses('ratio must be a list', load, 'ratio=0.5')
    refuses('flag must be true or false', load, 'flag=3')
  end)
  it('refuse what is no setting', function()
    refuses('epochs', load, 'epochs')
    refuses('+epochs', load, '+epochs=3')
  end)
  it('name a placeholder that was left', function()
    refuses('data_dir is not set', config.require_path, load(), 'data_dir')
  end)
  it('refuse duplicate keys and damaged YAML with the line', function()
    refuses('a', config.load, yaml 'a: 1\nb: 2\na: 3\n', {})
    local ok, message = pcall(config.load, yaml 'a: 1\nb: 2\na: 3\n', {})
    assert(not ok and message:find('3', 1, true), message)
    refuses('yaml', config.load, yaml('a: [1\n', os.tmpname() .. '.yaml'), {})
  end)
  it('may stand on another file', function()
    local base = yaml 'x: 1\ny: 2\n'
    local c = config.load(yaml(('base: %s\ny: 3\nunlike_others: 4\n'):format(base:match('[^/]*$'))), { 'x=5' })
    assert.same({ 5, 3, 4 }, { c.x, c.y, c.unlike_others })
  end)
  it('survive being written and read again', function()
    local c = load('lr=2.5e-7', 'name=yes', 'ratio=[0.25,0.75]')
    local again = config.load(yaml(config.dump(c)), {})
    for _, key in ipairs { 'epochs', 'lr', 'name', 'flag' } do assert.equal(c[key], again[key]) end
    assert.same(c.ratio, again.ratio)
  end)
  it('may come from a Lua table', function()
    assert.same({ a = 2, b = 'x' }, config.parse({ a = 1, b = 'x' }, { 'a=2' }))
    refuses("did you mean 'a'", config.parse, { a = 1 }, { 'aa=2' })
  end)
end)
