-- Weights from files into modules, and ./tycho ckpt.
local lfs = require 'lfs'
local tycho = require 'tycho'
local lib = require 'tycho.lib'
local checkpoint = require 'tycho.train.checkpoint'
local npz = require 'tycho.io.npz'
local pt = require 'tycho.io.pt'
local safetensors = require 'tycho.io.safetensors'
local failure = require 'spec.failure'
local files = require 'spec.files'
local says = require 'spec.says'
local shell = require 'spec.shell'

local folder = files.folder()
local function path(name) return folder .. '/' .. name end
local root = lib.root == '.' and lfs.currentdir() or lib.root
local golden = root .. '/spec/golden/ptfiles/valid/'

-- Output and exit status of ./tycho ckpt in the folder.
local function ckpt(arguments)
  return shell(('%s/tycho ckpt %s'):format(root, arguments), folder)
end

local function assert_says(words, arguments)
  local text, status = ckpt(arguments)
  assert.equal(1, status)
  assert.truthy(text:match('^tycho: [^\n]*\n$'), text)
  says(text, unpack(words))
end

describe('checkpoints', function()
  after_each(function() os.execute(('rm -rf %s/*'):format(folder)) end)

  describe('weights', function()
    local function net() return tycho.nn.Sequential { tycho.nn.Linear(3, 2), tycho.nn.BatchNorm2d(2), tycho.nn.Linear(2, 1) } end
    local function assert_loaded(module, model)
      for _, entry in ipairs(module:state_dict()) do assert.same(model:get(entry[1]):tolist(), entry[2]:tolist()) end
    end

    it('load from a state dict inside a training checkpoint of PyTorch, in both layouts', function()
      for _, layout in ipairs { 'zip', 'legacy' } do
        local name = golden .. 'nested_optimizer_' .. layout .. '.pt'
        assert_loaded(checkpoint.load_weights(name, net()), pt.load(name):get 'model')
      end
    end)
    it('load from every format and from a training checkpoint of ours', function()
      local model = pt.load(golden .. 'nested_optimizer_zip.pt'):get 'model'
      local arrays = {}
      for name, t in model:pairs() do arrays[name] = t end
      pt.save(path 'a.pt', pt.dict { { 'state_dict', model }, { 'epoch', 3 } })
      npz.save(path 'a.npz', arrays)
      safetensors.save(path 'a.safetensors', arrays)
      for _, name in ipairs { 'a.pt', 'a.npz', 'a.safetensors' } do assert_loaded(checkpoint.load_weights(path(name), net()), model) end
      local module = checkpoint.load_weights(path 'a.pt', net())
      checkpoint.save(path 'run', { modules = { model = module, probe = tycho.nn.Linear(1, 1) }, optimizers = {}, state = { iteration = 1 } })
      assert_loaded(checkpoint.load_weights(path 'run', net()), model)
    end)
    it('leave nothing behind, neither memory nor a mapped file', function()
      -- In a process of its own: what compiled code may keep alive is what ran first.
      files.write(path 'script.lua', [[
        local layers = {}
        for i = 1, 80 do layers[i] = tycho.nn.Linear(60, 60) end
        local module = tycho.nn.Sequential(layers)
        tycho.io.pt.save('a.pt', tycho.io.pt.dict(module:state_dict()))
        for _ = 1, 3 do tycho.train.checkpoint.load_weights('a.pt', module) end
        tycho.collect()
        assert(tycho.memory().registered == module:num_parameters() * 4, 'memory')
        assert(not io.open('/proc/self/maps'):read('*a'):find('a.pt', 1, true), 'mapped')]])
      assert.equal('', (shell(root .. '/tycho -e "dofile([[script.lua]])"', folder)))
    end)
    it('keep channels-last memory', function()
      local conv = tycho.nn.Conv2d(2, 3, 3)
      local x = tycho.arange(54):reshape { 3, 2, 3, 3 }
      pt.save(path 'a.pt', pt.dict { { 'weight', x } })
      checkpoint.load_weights(path 'a.pt', conv)
      assert.is_true(conv.weight:is_image())
      assert.same(x:tolist(), conv.weight:tolist())
      pt.save(path 'b.pt', pt.dict(conv:state_dict()))
      assert.is_true(pt.load(path 'b.pt'):get('weight'):is_contiguous())
      assert.same(x:tolist(), pt.load(path 'b.pt'):get('weight'):tolist())
    end)
    it('of a training with other parts are refused', function()
      local parts = { modules = { model = net(), probe = net() }, optimizers = {}, state = { step = 1 } }
      checkpoint.save(path 'a.safetensors', parts)
      parts.modules.probe = nil
      says(failure(checkpoint.load, path 'a.safetensors', parts), "is of another training: nothing here takes the tensors of its 'probe'")
    end)
    it('say what is wrong with the file', function()
      pt.save(path 'a.pt', pt.dict { { 'epoch', 3 } })
      local message = failure(checkpoint.load_weights, path 'a.pt', net())
      assert.equal(path 'a.pt' .. " holds no state dict: expected tensors by name, perhaps under 'state_dict' or 'model'", message)
      message = failure(checkpoint.load_weights, golden .. 'nested_optimizer_zip.pt', tycho.nn.Linear(3, 2))
      assert.truthy(message:find('2 missing: bias, weight; 9 unexpected: 0.bias (near bias)', 1, true), message)
    end)
  end)

  it('of a training are refused when a bit of them has changed, and need no checksum', function()
    local parts = { modules = { net = tycho.nn.Linear(3, 2) }, optimizers = {}, state = { iteration = 7, note = 'x' } }
    checkpoint.save(path 'run', parts)
    assert.same(parts.state, checkpoint.load(path 'run', parts))
    local whole = files.read(path 'run')
    for _, at in ipairs { #whole, whole:find('"net/bias":{', 1, true), (whole:find(':7', 1, true)) } do
      local from = at < #whole and at + 1 or at
      files.write(path 'run', whole:sub(1, from - 1) .. string.char(bit.bxor(whole:byte(from), 1)) .. whole:sub(from + 1))
      local before = parts.modules.net.bias:tolist()
      assert.matches('run: its tensors or its state are damaged, the checksum is another', failure(checkpoint.load, path 'run', parts))
      assert.same(before, parts.modules.net.bias:tolist())
    end
    local tensors, metadata = safetensors.load(path 'run')
    safetensors.save(path 'old', tensors, { state = metadata.state })
    assert.equal('x', checkpoint.load(path 'old', parts).note)
  end)

  describe('./tycho ckpt', function()
    it('inspects', function()
      local text, status = ckpt('inspect ' .. golden .. 'nested_optimizer_zip.pt')
      assert.equal(0, status)
      for line in text:gmatch('[^\n]+') do assert.truthy(#line <= 80 or line:find(golden, 1, true), line) end
      for _, pattern in ipairs { 'PyTorch, [%d.]+ KiB, 27 tensors, 56 elements', 'model/1%.num_batches_tracked +i64 +scalar',
        'optimizer/state/0/exp_avg +f32 +2x3', 'betas +%(0%.9, 0%.999%)', '\nepoch +17\n', '\noptimizer +18 tensors +36 elements +144 bytes' } do
        assert.truthy(text:find(pattern), pattern)
      end
      text = ckpt('inspect ' .. golden .. 'dtypes_legacy.pt')
      for _, dtype in ipairs { 'f16', 'bf16', 'bool', 'i16', 'i8' } do assert.truthy(text:find(' ' .. dtype .. ' ', 1, true), dtype) end
      safetensors.save(path 'a', { x = tycho.ones { 2 } }, { note = 'long ' .. ('ü'):rep(100) })
      text, status = ckpt 'inspect a | head -3'
      assert.truthy(text:match('^a: safetensors, 304 bytes, 1 tensor, 2 elements\nx              f32  2\nmetadata note'), text)
      assert.truthy(text:find('metadata note  "long ü', 1, true) and text:find('...', 1, true) and status == 0, text)
    end)
    it('compares', function()
      local x = tycho.tensor { 3, 4 }
      pt.save(path 'a.pt', pt.dict { { 'x', x }, { 'nan', tycho.tensor { 0 / 0 } }, { 'y', x }, { 'step', 1 }, { 'gone', x } })
      pt.save(path 'b.pt', pt.dict { { 'x', tycho.tensor { 3, 4.5 } }, { 'nan', tycho.tensor { 0 / 0 } }, { 'y', tycho.ones { 3 } },
        { 'step', 2 }, { 'new', x } })
      local text, status = ckpt 'diff a.pt b.pt'
      assert.equal(1, status)
      assert.equal([[
! x     max abs 0.5  rel L2 0.1
! y     f32  2 -> f32  3
! step  1 -> 2
< gone  f32  2
> new   f32  2
1 equal, 3 differ (!), 1 only in a.pt (<), 1 only in b.pt (>)
]], text)
      local long = {}
      for i = 1, 200 do long[i] = i end
      pt.save(path 'f.pt', { list = long, text = ('x'):rep(3000), none = pt.none, [('n'):rep(60)] = x })
      long[200] = 0
      pt.save(path 'g.pt', { list = long, text = ('x'):rep(2999) .. 'y', none = pt.none, [('n'):rep(60)] = x })
      assert.equal(0, select(2, ckpt 'diff f.pt f.pt'))
      assert.truthy(ckpt('diff f.pt g.pt'):find('\n2 equal, 2 differ (!)', 1, true))
      npz.save(path 'c.npz', { x = x })
      safetensors.save(path 'c.safetensors', { x = x })
      text, status = ckpt 'diff c.npz c.safetensors'
      assert.equal(0, status)
      assert.equal('1 equal, 0 differ (!), 0 only in c.npz (<), 0 only in c.safetensors (>)\n', text)
      npz.save(path 'd.npz', { x = tycho.tensor({ 2^53, 1 }, 'i64') })
      pt.save(path 'd.pt', pt.dict { { 'x', tycho.tensor({ 2^53, 1 }, 'i64') } })
      local exact = tycho.tensor({ 0, 1 }, 'i64')
      exact:ptr()[0] = 2LL^53 + 1
      npz.save(path 'e.npz', { x = exact })
      assert.equal(0, select(2, ckpt 'diff d.npz d.pt'))
      assert.equal(1, select(2, ckpt 'diff d.npz e.npz'))
    end)
    it('converts', function()
      assert.equal('a.safetensors: 9 tensors, 1.2 KiB\n', (ckpt(('convert %sdataparallel_zip.pt a.safetensors'):format(golden))
        :gsub('%d+ tensors, [%d.]+ %a+', '9 tensors, 1.2 KiB')))
      assert.equal(0, select(2, ckpt(('diff %sdataparallel_zip.pt a.safetensors'):format(golden))))
      assert.equal(0, select(2, ckpt 'convert a.safetensors b.npz'))
      assert.equal(0, select(2, ckpt 'convert b.npz c.pt strip=module.'))
      assert.equal(0, select(2, ckpt(('diff %sdataparallel_zip.pt b.npz'):format(golden))))
      for name, t in pt.load(golden .. 'dataparallel_zip.pt'):pairs() do
        assert.same(t:tolist(), pt.load(path 'c.pt'):get(name:gsub('^module%.', '')):tolist())
      end
      local text = ckpt(('convert %snested_optimizer_zip.pt n.npz'):format(golden))
      assert.truthy(text:find('left out, because this format has no place for it: epoch\n', 1, true), text)
      text = ckpt(('convert %sdtypes_zip.pt d.safetensors'):format(golden))
      assert.truthy(text:find('\nf16 became f32 in 2 tensors\n', 1, true), text)
    end)
    it('says in one line what is wrong', function()
      pt.save(path 'a.pt', pt.dict { { 'x', tycho.ones { 1 } } })
      pt.save(path 'both.pt', pt.dict { { 'm.x', tycho.ones { 1 } }, { 'x', tycho.ones { 1 } } })
      assert_says({ "did you mean 'inspect'?" }, 'inspct a.pt')
      assert_says({ 'one file', 'got 0', '--help' }, 'inspect')
      assert_says({ 'two files', 'got 1' }, 'diff a.pt')
      assert_says({ 'none.pt', 'No such file' }, 'inspect none.pt')
      assert_says({ folder, 'folder' }, 'inspect ' .. folder)
      assert_says({ 'checkpoint_spec.lua', 'expected a .pt' }, ('inspect %s/spec/checkpoint_spec.lua'):format(root))
      assert_says({ 'os.system' }, ('inspect %s/../corrupt/global_os_system.pt'):format(golden))
      assert_says({ 'a.pt exists already' }, 'convert a.pt a.pt')
      assert_says({ 'b.txt', '.safetensors' }, 'convert a.pt b.txt')
      assert_says({ 'strip=PREFIX', 'module.' }, 'convert a.pt b.npz module.')
      assert_says({ 'a.pt', 'begins with module.' }, 'convert a.pt b.npz strip=module.')
      assert_says({ 'both.pt', 'the name x' }, 'convert both.pt b.npz strip=m.')
      pt.save(path 'both.pt', pt.dict { { 'm/x', 1 }, { 'm', pt.dict { { 'x', 2 } } } })
      assert_says({ 'both.pt', 'the name m/x' }, 'convert both.pt b.pt')
      local text, status = ckpt ''
      assert.truthy(text:find('usage: ./tycho ckpt inspect', 1, true) and status == 1)
      assert.equal(0, select(2, ckpt '--help'))
      assert.same({ 'a.pt', 'both.pt' }, (function()
        local names = {}
        for name in lfs.dir(folder) do if name:sub(1, 1) ~= '.' then names[#names + 1] = name end end
        table.sort(names)
        return names
      end)())
    end)
  end)
end)
