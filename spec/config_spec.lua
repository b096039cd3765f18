-- Settings: YAML with positions, the grammar of key=value, errors that name the key and its place, help and dump.
local config = require 'tycho.config'
local failure = require 'spec.failure'
local files = require 'spec.files'
local outcome = require 'spec.outcome'
local quietly = require 'spec.quietly'
local says = require 'spec.says'
local setenv = require 'spec.setenv'

local folder = files.folder()
local write = files.inside(folder)

local defaults = [[
# Defaults.
epochs: 10  # passes over the data
# step size
learning_rate: 1e-3
ratio: [0.5, 0.5, 0.0]  # three # numbers
name: "x # y"
resume: null
flag: yes
data_dir: <PATH_TO_DATA>
wandb:
  entity: me  # who
  project: toy
momentum: 0.9  # no effect: here is none
]]

local base = write('config.yml', defaults)

local function load(...) return config.load(base, { ... }) end

describe('a YAML of defaults', function()
  it('gives plain values', function()
    assert.same({ epochs = 10, learning_rate = 1e-3, ratio = { 0.5, 0.5, 0 }, name = 'x # y', flag = true, data_dir = '<PATH_TO_DATA>',
      wandb = { entity = 'me', project = 'toy' }, momentum = 0.9 }, load())
  end)
  it('knows YAML\'s ways to write a scalar', function()
    local path = write('scalars.yml', 'a: 1_000\nb: .5\nc: 1.0e-6\nd: 0x10\ne: .inf\nf: Off\ng: "7"\nh: 1e3\ni: 2020-01-01\nj: ~\nk: -3\n')
    assert.same({ a = 1000, b = 0.5, c = 1e-6, d = 16, e = math.huge, f = false, g = '7', h = 1000, i = '2020-01-01', k = -3 }, config.load(path))
  end)
  it('refuses a key given twice, and text that is not YAML', function()
    local path = write('twice.yml', 'a: 1\nb: 2\na: 3\n')
    says(failure(config.load, path), 'twice.yml, line 3', "'a' is already defined", 'twice.yml:1')
    says(failure(config.load, write('broken.yml', 'a: [1\nb: 2\n')), 'broken.yml is not valid YAML')
    says(failure(config.load, write('list.yml', '- 1\n')), 'list.yml, line 1', 'expected key: value')
    says(failure(config.load, folder .. '/none.yml'), 'cannot read', 'none.yml')
    for _, text in ipairs { '', '# nothing\n', '---\n' } do assert.same({}, config.load(write('empty.yml', text))) end
  end)
  it('refuses a second document, tags, and what is nested too deeply', function()
    says(failure(config.load, write('two.yml', 'a: 1\n---\nb: 2\n')), 'two.yml, line 2: a second document begins')
    for _, text in ipairs { 'a: !!str 3\n', 'a: [!x {}]\n', '!x\na: 3\n' } do
      says(failure(config.load, write('tag.yml', text)), 'tag.yml, line 1: tags such as !!str are not supported')
    end
    says(failure(config.load, write('deep.yml', 'a: ' .. ('['):rep(1e5))), 'deep.yml, line 1: lists and groups are nested deeper than 100')
    assert.truthy(config.load(write('deep.yml', 'a: ' .. ('['):rep(99) .. (']'):rep(99))))
  end)
  it('may change the keys of another file and add its own', function()
    write('demo.yml', 'base: config.yml\nepochs: 3\nwandb:\n  entity: you\nsamples: 7\nmomentum: 0.5  # now it has one\n')
    local cfg = load('--config-name', 'demo', 'samples=8')
    assert.same({ 3, 'you', 'toy', 8 }, { cfg.epochs, cfg.wandb.entity, cfg.wandb.project, cfg.samples })
    assert.is_nil(cfg.base)
    assert.equal('x # y', config.load(write('far.yml', ('base: %s/config.yml\n'):format(folder))).name)
    assert.equal(3, load('-cn', 'demo.yml', 'momentum=1').epochs)
    assert.same({}, config.notes(load('-cn', 'demo.yml', 'momentum=1')))
  end)
  it('notices slips in a file that has a base', function()
    write('slip.yml', 'base: config.yml\n\nepocs: 3\n')
    says(failure(load, '-cn', 'slip'), "unknown key 'epocs'", 'slip.yml:3', "did you mean 'epochs'")
    write('kind.yml', 'base: config.yml\nepochs: ten\n')
    says(failure(load, '-cn', 'kind'), 'epochs must be a number, got ten', 'kind.yml:2', 'config.yml:2')
    write('circle.yml', 'base: circle.yml\n')
    says(failure(load, '-cn', 'circle'), "'base' leads back to itself")
    says(failure(load, '-cn', 'confg'), "did you mean 'config.yml'")
  end)
end)

describe('key=value', function()
  local function value(text)
    return load('+new=' .. text).new
  end
  it('reads words, numbers, lists, maps and quotes', function()
    for text, expected in pairs {
      ['1_000'] = 1000, ['1e-3'] = 1e-3, ['-10e6'] = -10e6, ['.5'] = 0.5, ['+3'] = 3, ['inf'] = math.huge, ['-INF'] = -math.huge,
      ['True'] = true, ['fALSE'] = false, ['yes'] = 'yes', ['word'] = 'word', [' two words '] = 'two words', [''] = '', ['1.2.3'] = '1.2.3',
      ["'1'"] = '1', ['"a,b"'] = 'a,b', [ [['it\'s \\']] ] = [[it's \]], ['a=b'] = 'a=b', ['a\\,b'] = 'a,b', ['/a/b_c.pt'] = '/a/b_c.pt',
      ['1_000_000'] = 1000000, ['1__0'] = '1__0', ['0x10'] = '0x10', ['e5'] = 'e5', ['.'] = '.', ['-'] = '-',
    } do
      assert.equal(expected, value(text), text)
    end
    assert.is_nil(value 'Null')
    assert(value 'nan' ~= value 'nan')
    assert.same({ 0.5, 0.5, 0 }, value '[0.5,0.5,0.0]')
    assert.same({ 1, { 'a b', true }, 'c,d' }, value '[ 1 , [a b, true], "c,d"]')
    assert.same({}, value '[]')
    assert.same({ a = 1, b = { c = 'x', d = { 1, 2 } } }, value '{a:1, b:{c:x, d:[1,2]}}')
  end)
  it('says what is wrong with a value', function()
    says(failure(value, '1,2'), '[1,2]', 'comma')
    says(failure(value, '[1,2'), 'not closed')
    says(failure(value, '[1,,2]'), 'empty')
    says(failure(value, '[1] 2'), 'unexpected')
    says(failure(value, "'a"), 'quote')
    says(failure(value, '{a}'), 'key:value')
    says(failure(value, ('['):rep(1e5)), 'nested deeper than 100')
    says(failure(value, ('{a:'):rep(1e5)), 'nested deeper than 100')
  end)
  it('refuses texts that no YAML file holds', function()
    for _, text in ipairs { 'a\255b', "'a\0b'", '[a\224\128\128b]', '{a\237\160\128b: 1}', '{x: a\244\144\128\128b}' } do
      local message = failure(value, text)
      assert.equal(("'a%sb' cannot be a setting: expected UTF-8 text without zero bytes"):format(('?'):rep(#text:match 'a(.+)b')), message)
    end
  end)
  it('sets keys, the last wins, and puts split lists together', function()
    local cfg = load('epochs=3', 'epochs=4', 'wandb.project=p', 'ratio=[1,', '0,', '0]', 'name=007', 'flag=FALSE', 'resume=auto')
    assert.same({ 4, 'p', { 1, 0, 0 }, '007', false, 'auto' }, { cfg.epochs, cfg.wandb.project, cfg.ratio, cfg.name, cfg.flag, cfg.resume })
    assert.equal(0.5, load('epochs=0.5').epochs)
    assert.is_nil(load('epochs=null').epochs)
    assert.equal(5, load('epochs=null', 'epochs=5').epochs)
    assert.same({ entity = 'me', project = 'q' }, load('wandb={project:q}').wandb)
    assert.same({ entity = 'x', project = 'q' }, load('wandb={project:', 'q,', 'entity: x}').wandb)
  end)
  it('adds, forces and removes keys', function()
    assert.equal(1, load('+a.b=1').a.b)
    says(failure(load, '+epochs=1'), 'exists already', 'config.yml:2')
    assert.equal('text', load('++epochs=text').epochs)
    assert.equal(1, load('++new=1').new)
    assert.is_nil(load('~epochs').epochs)
    assert.is_nil(load('~epochs=10').epochs)
    says(failure(load, '~epochs=11'), '10')
    says(failure(load, '~epohcs'), "did you mean 'epochs'")
  end)
  it('names the nearest key and where it stands', function()
    says(failure(load, 'epohcs=3'), "unknown key 'epohcs'", "'epochs'", 'config.yml:2', '+epohcs=3')
    says(failure(load, 'wandb.projct=3'), "'wandb.project'", 'config.yml:12')
    says(failure(load, 'lr=3'), "unknown key 'lr'")
    says(failure(load, '--epochs=3'), 'epochs=3')
    says(failure(load, 'epochs'), 'epochs=VALUE')
    says(failure(load, 'data_dir', '/x'), 'data_dir=VALUE')
  end)
  it('checks kinds against the defaults', function()
    says(failure(load, 'epochs=ten'), 'epochs must be a number, got ten', '10 (', 'config.yml:2')
    says(failure(load, 'epochs=1', 'epochs=ten'), 'config.yml:2')
    says(failure(load, 'ratio=0.5'), 'ratio must be a list of numbers', '[0.5,0.5,0]', 'config.yml:5')
    says(failure(load, 'ratio=[a,b]'), 'list of numbers')
    says(failure(load, 'flag=1'), 'flag must be true or false')
    says(failure(load, 'wandb=3'), 'wandb must be a group')
    says(failure(load, 'name=[1]'), 'name must be text')
  end)
  it('errors are for the person at the keyboard: one line, no position', function()
    for _, argument in ipairs { 'epohcs=3', 'epochs=ten', 'epochs=[', '+epochs=1', 'x' } do
      local message = failure(load, argument)
      assert.falsy(message:match('^[^\n:]+:%d+: '), message)
      assert.falsy(message:find('\n'), message)
    end
  end)
end)

describe('${...}', function()
  local function filled(...) return load('+a=1', '+b.c=text', ...) end
  it('takes the value of another key, or of the environment', function()
    for text, expected in pairs {
      ['${a}'] = 1, ['${b.c}'] = 'text', ['x${a}_${b.c}'] = 'x1_text', ['${oc.env:HOME}'] = os.getenv 'HOME', ['${oc.env:NO_SUCH_NAME,7}'] = 7,
      ['${oc.env:NO_SUCH_NAME, a b}'] = 'a b', ['${oc.env:NO_SUCH_NAME,}'] = '', ['"${a}"'] = 1, ['\\${a}'] = '${a}',
      ['${oc.env:NO_SUCH_NAME,${a}}'] = 1,
    } do
      assert.equal(expected, filled('+d=' .. text).d, text)
    end
    assert.same({ 1, 'text' }, filled('+d=[${a},${b.c}]').d)
    assert.same({ 0.5, 0.5, 0 }, filled('+d=${ratio}').d)
    assert.same({ entity = 'me', project = 'toy' }, filled('+d=${wandb}').d)
    assert.equal(10, filled('learning_rate=${epochs}').learning_rate)
    assert.equal('10', filled('name=${epochs}').name)
    assert.equal('me/config', config.load(write('refers.yml', 'a: ${b}/config\nb: me\n')).a)
  end)
  it('is not looked for in what it stands for', function()
    assert.same({ 'x', '${b.c}', '${b.c}', 'y${b.c}' }, filled('+d=[x,\\${b.c},${e},y${e}]', '+e=\\${b.c}').d)
    setenv('TYCHO_SPEC', 'x${oc.env:TYCHO_SPEC}')
    local cfg = filled('+d=${oc.env:TYCHO_SPEC}', '+e=y${d}', '+f=${d}')
    setenv('TYCHO_SPEC', nil)
    assert.same({ 'x${oc.env:TYCHO_SPEC}', 'yx${oc.env:TYCHO_SPEC}', cfg.d }, { cfg.d, cfg.e, cfg.f })
  end)
  it('says what is wrong with it', function()
    says(failure(filled, 'name=${nmae}'), "unknown key 'nmae' (in the value of name); did you mean 'name'")
    says(failure(filled, 'epochs=${b.c}'), 'epochs must be a number, got text')
    says(failure(filled, 'name=${name}'), 'name: its ${...} leads back to itself')
    says(failure(filled, 'name=${flag2', '+flag2=${name}'), 'not closed')
    says(failure(filled, '+d=${oc.env:NO_SUCH_NAME}'), 'd: the environment variable of ${oc.env:NO_SUCH_NAME} is not set')
    says(failure(filled, 'name=${uuid:}'), 'name: ${uuid:} is not understood; there are ${key}, ${oc.env:VARIABLE}')
  end)
  it('is dumped filled in, and a text that looks like one comes back as it is', function()
    local cfg = filled('name=${b.c}', '+d=\\${a}')
    local back = config.load(write('filled.yml', config.dump(cfg)))
    assert.same({ 'text', '${a}' }, { back.name, back.d })
    cfg.list = { '${b.c}', { inner = '${a}' } }
    back = config.load(write('filled.yml', config.dump(cfg)))
    assert.same({ '${b.c}', { inner = '${a}' } }, back.list)
  end)
end)

describe('a file over the defaults', function()
  it('changes keys, and is refused unknown ones', function()
    write('mine.yml', 'epochs: 3\nwandb:\n  project: mine\n')
    local cfg = load('-cn', 'mine', 'ratio=[1,0,0]')
    assert.same({ 3, 1e-3, 'me', 'mine', { 1, 0, 0 } }, { cfg.epochs, cfg.learning_rate, cfg.wandb.entity, cfg.wandb.project, cfg.ratio })
    assert.equal(3, load('--config-path', folder, '--config-name=mine').epochs)
    assert.equal(3, load('--config-name', folder .. '/mine.yml').epochs)
    write('odd.yml', 'epochs: 3\nsteps: 4\n')
    says(failure(load, '-cn', 'odd'), "unknown key 'steps' (", 'odd.yml:2)', 'to add a key write +steps=4')
    says(failure(load, '-cp', folder .. '/none'), '--config-path', 'there is no such folder')
  end)
  it('of saved settings stands between the defaults and the arguments', function()
    local saved = write('saved.yml', 'epochs: 3\nextra: 5\nname: saved\n')
    local cfg = config.load(base, { 'name=now' }, saved)
    assert.same({ 3, 5, 'now', 1e-3 }, { cfg.epochs, cfg.extra, cfg.name, cfg.learning_rate })
    local after = quietly(config.load, base, { 'name=now', 'momentum=1', 'ratio=[1,0,0]' }, saved) -- momentum is told of
    assert.same({ 'no effect: momentum (--help says why)' }, config.notes(after))
    local differences = config.differences(config.load(base, {}, saved), after)
    assert.same({ { key = 'ratio', before = '[0.5, 0.5, 0]', after = '[1, 0, 0]', no_effect = false },
      { key = 'name', before = 'saved', after = 'now', no_effect = false },
      { key = 'momentum', before = '0.9', after = '1', no_effect = true } }, differences)
  end)
end)

describe('rules for values', function()
  local check = require 'tycho.config.check'
  it('raise the first broken one, in the order of the file, with its place', function()
    local rules = { ratio = check.list(check.number(0, 1), 3), epochs = check.whole(11), flag = check.flag(), learning_rate = check.positive() }
    says(failure(config.check, load('ratio=[0,2,0]'), rules), 'epochs must be a whole number >= 11, got 10 (', 'config.yml:2)')
    says(failure(config.check, load('ratio=[0,2,0]', 'epochs=11'), rules),
      'ratio must be a list of 3, each a number from 0 to 1, got [0, 2, 0]')
    assert.has_no.errors(function() config.check(load('epochs=11'), rules) end)
    says(failure(config.check, load('epochs=11', '~flag'), rules), 'flag must be true or false, got null')
    says(failure(config.check, { epochs = 3 }, rules), 'epochs must be a whole number >= 11, got 3')
  end)
end)

describe('inline defaults', function()
  it('take order, place and meaning from the script', function()
    local cfg = config.parse({
      zebra = 10, -- last letter, first key
      apple = 0.1, -- a fruit
      sizes = { 1, 2 },
    }, { 'zebra=11', 'sizes=[3]' })
    assert.same({ zebra = 11, apple = 0.1, sizes = { 3 } }, cfg)
    assert.equal('zebra: 11\napple: 0.1\nsizes: [3]\n', config.dump(cfg))
    local message = failure(function() config.parse({ apple = 1 }, { 'aple=2' }) end)
    says(message, "'apple'", 'config_spec.lua:')
    says(failure(config.parse, { apple = 1 }, { '-cn', 'x' }), 'no configuration files')
  end)
end)

describe('config.dump', function()
  it('keeps the order of the file and the values of now, and reads back', function()
    local cfg = load('name=a: b', 'learning_rate=5e-5', 'resume=null')
    cfg.epochs = 77
    cfg.added = { 'x', 1 }
    local text = config.dump(cfg)
    assert.truthy(text:match('^epochs: 77\nlearning_rate: 5e%-05\nratio: %[0.5, 0.5, 0%]\nname: "a: b"\nresume: null\nflag: true\n'), text)
    cfg.resume = nil
    assert.same(cfg, config.load(write('dumped.yml', text)))
  end)
  it('quotes what would be read as something else', function()
    local strings = { 'true', 'no', '12', '1e3', '', 'a # b', '- x', '[x', 'null', '~', "it's", 'tab\there',
      'two\nlines', '<PATH>', '*a', 'a: b', ' x', '0x10', '.inf', '+.inf', '.nan', 'a:?b', 'http://x', '\\"', '\1\127', 'é\194\133\194\159',
      '\226\128\168', '\226\128\169', '\239\187\191', '\239\191\191' }
    local values = {}
    for i, text in ipairs(strings) do values['k' .. i] = text end
    local path = write('quoted.yml', config.dump(values))
    assert.same(values, config.load(path))
  end)
  it('quotes keys as it does texts', function()
    local values = { list = { {} } }
    for _, key in ipairs { 'a: b', '# c', '- d', '7', '"', '\239\187\191', '' } do values[key], values.list[1][key] = { [key] = 'x' }, 'x' end
    assert.same(values, config.load(write('keys.yml', config.dump(values))))
  end)
end)

describe('config.require_path', function()
  it('names the key that must be set', function()
    says(failure(config.require_path, load(), 'data_dir'), 'data_dir is not set', '<PATH_TO_DATA>', 'config.yml:9', 'data_dir=PATH')
    says(failure(config.require_path, load('resume=null'), 'resume'), 'resume is not set')
    says(failure(config.require_path, load('data_dir=/nonexistent'), 'data_dir'), 'data_dir=/nonexistent', 'no such')
    assert.equal(folder, config.require_path(load('data_dir=' .. folder), 'data_dir'))
  end)
end)

describe('--help, --cfg and notes', function()
  local function run(arguments)
    local path = write('script.lua', ("require('tycho.config').load(%q, arg) print('ran')"):format(base))
    return outcome(('./tycho %s %s'):format(path, arguments))
  end
  it('explains every key', function()
    local out = run '--help'
    for _, pattern in ipairs { 'epochs +integer +10 +passes over the data\n', 'learning_rate +number +0.001 +step size\n',
      'ratio +list +%[0.5, 0.5, 0%] +three # numbers\n', 'wandb.entity +string +me +who\n', 'status 0\n$' } do
      assert.truthy(out:match(pattern), out)
    end
    assert.falsy(out:find('ran', 1, true))
  end)
  it('prints the settings and stops', function()
    local out = run 'epochs=3 --cfg job'
    assert.truthy(out:match('^epochs: 3\n') and out:match('status 0\n$') and not out:find('ran', 1, true), out)
    assert.truthy(run('--cfg=all --resolve'):match('^epochs: 10\n'))
    says(run '--cfg tool', "'job' or 'all'", 'status 1')
  end)
  it('says when arguments have no effect, all in one line and once', function()
    says(run '" " epochs=3', 'a blank follows the backslash at the end of a line', 'ran', 'status 0')
    assert.equal('tycho: no effect: hydra.run.dir, momentum (--help says why)\nran\nstatus 0\n', run 'hydra.run.dir=x momentum=1 epochs=3 momentum=2')
    assert.equal('ran\nstatus 0\n', run 'epochs=3')
  end)
  it('names the options when one is unknown, and what is not there yet', function()
    says(run '-x', "unknown option '-x'; options are --config-name NAME", 'status 1')
    says(run '-m', '-m: this script cannot be swept', 'status 1')
    says(run '--config-name', '--config-name needs a value', 'status 1')
  end)
end)
