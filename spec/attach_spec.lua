-- A prompt in the middle of a program: tycho.pause, and ./tycho attach in a live training.
local ffi = require 'ffi'
local lfs = require 'lfs'
local file = require 'tycho.io.file'
local lib = require 'tycho.lib'
local socket = require 'tycho.io.socket'
local files = require 'spec.files'
local pty = require 'spec.pty'
local says = require 'spec.says'
local shell = require 'spec.shell'

local root = lfs.currentdir()
local folder = files.folder()

local write, read = files.inside(folder)
local function wait_for(condition)
  local deadline = lib.cpu.ty_now() + 20
  while not condition() do
    assert(lib.cpu.ty_now() < deadline, 'waited in vain')
    os.execute 'sleep 0.05'
  end
end

local small = 'data_dir=data resolution=16 width=2 projection_dim=16 n_embd=8 n_layer=1 n_head=2 block_size=4 batch_size=5 epochs=1000000 '
  .. 'learning_rate=0.03 random_mask=True mask_prob=0.5 log_interval=1000000 save_interval=1000000 '
-- Starts a training that nobody waits for; returns its pty.
local function train(script, arguments)
  local p = pty.start(('cd %s && OMP_NUM_THREADS=1 exec %s/tycho %s %s%s'):format(folder, root, script, small, arguments))
  local run = arguments:match('run_dir=(%S+)')
  wait_for(function() return lfs.attributes(('%s/%s/control'):format(folder, run), 'mode') end)
  return p
end
local function stop(p)
  p:send '\3'
  assert.equal(130, (p:finish()))
end
local function attach(run, lines)
  write('lines', lines)
  return shell(('%s/tycho attach %s < lines'):format(root, run), folder)
end
local main = root .. '/experiments/main.lua'

setup(function()
  local out, status = shell(('./tycho experiments/toy3d.lua out=%s/data objects=10 val_objects=3 views=3 size=16 classes=2'):format(folder))
  assert(status == 0, out)
end)

describe('tycho.pause', function()
  it('opens the prompt with the locals and upvalues of the caller, readable and assignable', function()
    write('paused.lua', [[
local tycho = require 'tycho'
local outer = 'upvalue'
local function work(a, b)
  local sum = a + b
  do local hidden = 1 end
  tycho.pause()
  return sum, outer
end
print('result', work(3, 4))
]])
    write('lines', 'sum * 2\nsum = 100\nouter = outer .. " changed"\nfresh = a + b\nfresh\ntype(print)\nhidden\n:who\n'
      .. 'for i = 1, 2 do sum = sum + i end\n')
    local out, status = shell(root .. '/tycho paused.lua < lines', folder)
    says(out, 'paused at paused.lua:6, with a, b, outer, sum', '\n14\n7\nfunction\nnil\n', 'result\t103\tupvalue changed')
    says(out, 'sum    100', 'outer  "upvalue changed"')
    assert.equal(0, status)
  end)
  it('goes to the callers and changes their locals', function()
    write('paused.lua', [[
local function inner(k) local z = k * 2; require('tycho').pause(); return z end
local function outer(v) local w = v + 1; local r = inner(w); return r, w end
print('result', outer(3))
]])
    write('lines', 'z\n:up\nw * 10\nw = 50\n:up\n:up\n:down\n:down\n:down\nz = 9\n:go\n')
    local out = shell(root .. '/tycho paused.lua < lines', folder)
    says(out, 'frame 2 of 3\n  paused.lua:2 in outer', '\n40\n', 'frame 3 of 3', 'this is the outermost frame', 'v = 3, w = 50',
      'this is the innermost place', 'result\t9\t50')
  end)
  it('completes the locals, and lives on after errors', function()
    write('paused.lua', "local weights = require('tycho').ones{2, 3}\nrequire('tycho').pause()\nprint('after', weights:size(0))")
    local p = pty.start(('cd %s && HOME=%s NO_COLOR=1 TERM=xterm exec %s/tycho paused.lua'):format(folder, folder, root))
    p:expect '1> '
    p:send 'weig\t:siz\t(1)\r'
    p:expect '\n3\r'
    p:send 'nil .. 1\r'
    p:expect 'attempt to concatenate'
    p:send ':go\r'
    p:expect 'after\t2'
    assert.equal(0, (p:finish()))
  end)
end)

describe('./tycho attach', function()

  it('looks, changes settings, weights and policies between two steps, and records it', function()
    local p = train(main, 'run_dir=live')
    assert.equal('rw-------', lfs.attributes(folder .. '/live/control', 'permissions'))
    local out, status = attach('live', [[
config.mask_prob
config.learning_rate = 0.001
masks = policies.masks
policies.masks = function(...) seen = (seen or 0) + 1; return masks(...) end
first = loop.iteration;
:go 10
loop.iteration - first, seen
model.predictor
meters:means().loss < 1000
nil .. 1
print("printed here")
!echo from its shell
]])
    says(out, '\n0.5\n', 'learning_rate was 0.03 and is 0.001 from step', '\n10\n10\n', 'module of ', '\ntrue\n', 'attempt to concatenate',
      '\nprinted here\n', '\nfrom its shell\n')
    assert.equal(1, status) -- a line failed
    -- A run that is killed now goes on with the new settings from the very step of the change.
    local _, metadata = require('tycho.io.safetensors').load(folder .. '/live/checkpoint.safetensors')
    says(metadata.state, ('"iteration":%s'):format(out:match 'is 0.001 from step (%d+)'))
    local before
    wait_for(function()
      before = tonumber(read('live/train.log'):match('step (%d+): detached'))
      return before
    end)
    wait_for(function() return attach('live', 'loop.iteration\n'):match('\n(%d+)\n$') + 0 > before + 20 end)
    says(read 'live/train.log', 'attached: config.learning_rate = 0.001', 'changed: learning_rate was 0.03 and is 0.001',
      'attached: policies.masks = ')
    assert.truthy(read('live/config.yml'):find('learning_rate: 0.001', 1, true))
    stop(p)
    assert.is_nil(lfs.attributes(folder .. '/live/control'))
    says((attach('live', '1\n')), 'live does not train now; resume=live goes on with it')
  end)
  it('reaches the next step of a training by graphs, whatever is changed', function()
    local problem = require('tycho.device').problem 'cuda-host'
    if problem then return pending(problem) end
    local p = train(main, 'run_dir=graphs device=cuda-host')
    local out = attach('graphs', [[
:go 12
before = model.predictor.forward
model.predictor.forward = function(...) seen = (seen or 0) + 1; return before(...) end
:go 12
seen > 0 and seen < 12
]])
    says(out, '\ntrue\n')
    stop(p)
  end)
  it('takes back settings that no run could begin with', function()
    local p = train(main, 'run_dir=guarded')
    for line, text in pairs {
      ['config.learning_rate = "0.01x"'] = 'nothing was changed: learning_rate must be a number >= 0, got 0.01x',
      ['config.learning_rat = 0.01'] = "nothing was changed: unknown key 'learning_rat'; did you mean 'learning_rate'?",
      ['config.batch_size = 6'] = 'nothing was changed: batch_size cannot change in a run that has begun; what can: learning_rate, ',
      ['config.image_mean = {0, 0, 0}'] = 'nothing was changed: image_mean cannot change in a run that has begun',
      ['config.data_dir = "other"'] = 'nothing was changed: data_dir cannot change in a run that has begun',
      ['config.mask_prob = nil'] = 'nothing was changed: mask_prob must be a number from 0 to 1, got nil',
    } do
      local out, status = attach('guarded', line .. '\nconfig.learning_rate, config.batch_size, config.mask_prob, config.learning_rat\n')
      says(out, text, '\n0.03\n5\n0.5\nnil\n')
      assert.equal(1, status)
    end
    says((attach('guarded', 'config.mine = 3\nconfig.mine\n')), 'mine is new, 3 from step', 'nothing but code of your own reads it', '\n3\n')
    says(read 'guarded/config.yml', 'learning_rate: 0.03', 'batch_size: 5')
    stop(p)
  end)
  it('is not ended by a prompt that is left', function()
    local p = train(main, 'run_dir=left')
    says((attach('left', 'os.exit(1)\nos.time() > 0\n')), 'os.exit would end the training; :go leaves it', '\ntrue\n')
    says((attach('left', 'loop.iteration > 0\n')), '\ntrue\n')
    stop(p)
  end)
  it('takes an edited loss into the running training', function()
    write('my_losses.lua', [[
local objective = require 'experiments.contextssl.objective'
local M = {}
local function shown(loss) return loss * 0 + 7 end
function M.losses(...)
  local loss, out = objective.losses(...)
  out.nt_xent = shown(out.nt_xent)
  return loss, out
end
return M
]])
    write('mine.lua', ("require('experiments.contextssl.training').policies.losses = require('my_losses').losses\ndofile(%q)"):format(main))
    local p = train('mine.lua', 'run_dir=reloaded')
    wait_for(function() return lfs.attributes(folder .. '/reloaded/metrics.jsonl') end)
    says(read 'reloaded/metrics.jsonl', '"loss":7,')
    write('my_losses.lua', (read('my_losses.lua'):gsub('7', '9')))
    says((attach('reloaded', ':reload\n')), 'reloaded my_losses: 2 functions')
    wait_for(function() return read('reloaded/metrics.jsonl'):find('"loss":9,', 1, true) end)
    write('my_losses.lua', 'this is no Lua')
    local out, status = attach('reloaded', ':reload\n')
    says(out, 'my_losses was not reloaded: ./my_losses.lua:1:')
    assert.equal(1, status)
    local rows = select(2, read('reloaded/metrics.jsonl'):gsub('\n', ''))
    wait_for(function() return select(2, read('reloaded/metrics.jsonl'):gsub('\n', '')) > rows + 2 end)
    stop(p)
  end)
  it('switches break_on_nan on in the running training', function()
    local p = train(main, 'run_dir=checked')
    attach('checked', [[
config.break_on_nan = true
policies.terms.sick = function(step) return (step.prediction:sum() * 0 - 1):log() end
]])
    local status, all = p:finish()
    assert.equal(1, status)
    says(all, 'break_on_nan: log made 1 NaN of 1 numbers')
    says(read 'checked/train.log', 'changed: break_on_nan was false and is true from step')
    says(read 'checked/report.html', 'failed, ')
  end)
  it('is one at a time, stops what runs away, and outlives whoever was attached', function()
    local p = train(main, 'run_dir=shared')
    local a = pty.start(('cd %s && HOME=%s NO_COLOR=1 TERM=xterm exec %s/tycho attach shared'):format(folder, folder, root))
    a:expect '1> '
    says((attach('shared', '1\n')), 'shared is attached already, by another terminal; one at a time')
    a:send 'config.mask_p\t\r'
    a:expect '\n0.5\r'
    a:send 'while true do end\r'
    a:expect '\27[?2004l'
    os.execute 'sleep 0.3'
    a:send '\3'
    a:expect 'interrupted'
    a:send 'x = tycho.ones{3}; x\r'
    a:expect '[1 1 1]'
    ffi.C.kill(a.process, 9)
    a:finish()
    wait_for(function() return read('shared/train.log'):find('detached, the training goes on', 1, true) end)
    says((attach('shared', 'x:sum():item()\n')), '\n3\n') -- variables stay
    stop(p)
  end)
  it('drops whoever says what is no message', function()
    local p = train(main, 'run_dir=garbled')
    for _, words in ipairs { file.put_u32(5) .. 'hello', file.put_u32(1) .. '7', file.put_u32(100) .. '{"run"', file.put_u32(9) .. '{"run":1}' } do
      local connection = assert(socket.connect(folder .. '/garbled', 'control'))
      assert.is_true(connection:receive().hello)
      ffi.C.send(connection.fd, words, #words, 0)
      assert.is_nil(connection:receive())
      connection:close()
    end
    says((attach('garbled', '1 + 1\n')), '\n2\n')
    stop(p)
  end)
  it('says why the training ended that it is attached to', function()
    local p = train(main, 'run_dir=faulty')
    local out, status = attach('faulty', "policies.losses = function() error 'no such luck' end\n:go 5\n")
    assert.equal(1, status)
    says(out, 'the training has ended: it failed: ', 'no such luck')
    p:finish()
    local step = read('faulty/train.log'):match 'step (%d+): attached'
    says(read 'faulty/train.log', ('the state after step %s is kept'):format(step)) -- it was saved when somebody attached
  end)
  it('says what is wrong with a run that cannot be attached to', function()
    local p = train(main, 'run_dir=dead')
    ffi.C.kill(p.process, 9)
    p:finish()
    local out, status = attach('dead', '1\n')
    assert.equal('tycho: dead does not train any more: its process has ended and left the socket behind; resume=dead goes on\n', out)
    assert.equal(1, status)
    says((attach('daed', '1\n')), 'did you mean ./dead?')
    -- a resumed run takes the socket over
    p = train(main, 'run_dir=dead resume=dead')
    wait_for(function() return select(2, attach('dead', '1 + 1\n')) == 0 end)
    stop(p)
  end)
  it('costs a training nothing that can be measured', function()
    lfs.mkdir(folder .. '/listening')
    local listener = require('tycho.io.socket').listen(folder .. '/listening', 'control')
    local start = lib.cpu.ty_now()
    for _ = 1, 1e4 do assert(listener:accept() == nil) end
    local each = (lib.cpu.ty_now() - start) / 1e4
    listener:close()
    assert(each < 2e-5, each)
  end)
end)

describe('a second Ctrl-C', function()
  it('waits for the state that is being saved, and the run has its report', function()
    write('slow.lua', ([[
local checkpoint, now = require 'tycho.train.checkpoint', require 'tycho.lib'.cpu.ty_now
local save = checkpoint.save
function checkpoint.save(...)
  print 'saving'
  local start = now()
  while now() - start < 0.5 do end
  return save(...)
end
dofile(%q)]]):format(main))
    local p = train('slow.lua', 'run_dir=slow')
    p:send '\3'
    p:expect 'saving'
    p:send '\3'
    assert.equal(130, (p:finish()))
    says(read 'slow/status.json', '"stopped"')
    says(read 'slow/train.log', 'stopped after step')
    assert.truthy(lfs.attributes(folder .. '/slow/checkpoint.safetensors'))
    says(read 'slow/report.html', 'stopped, ', '<h2>Configuration</h2>')
  end)
end)

describe('break_on_nan=true', function()
  it('stops a training at the op and the line, and changes no number of one that goes well', function()
    write('sick.lua', ([[
local training = require 'experiments.contextssl.training'
local losses, calls = training.policies.losses, 0
function training.policies.losses(...)
  local loss, out = losses(...)
  calls = calls + 1
  if calls == 5 then loss = (loss - loss - 1):log() end
  return loss, out
end
dofile(%q)]]):format(main))
    local few = small:gsub('epochs=%d+', 'epochs=4 warmup_epochs=1')
    local out, status = shell(('OMP_NUM_THREADS=1 %s/tycho sick.lua %s run_dir=sick break_on_nan=true'):format(root, few), folder)
    says(out, 'sick.lua:6: break_on_nan: log made 1 NaN of 1 numbers', 'its inputs are finite')
    assert.equal(1, status)
    says(read 'sick/train.log', 'break_on_nan: log made')
    for _, value in ipairs { 'true', 'false' } do
      out, status = shell(('OMP_NUM_THREADS=1 %s/tycho %s %s run_dir=well_%s break_on_nan=%s'):format(root, main, few, value, value), folder)
      assert(status == 0, out)
    end
    assert.equal(read 'well_true/metrics.jsonl', read 'well_false/metrics.jsonl')
  end)
end)
