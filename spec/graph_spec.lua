-- Steps that are captured as graphs: the same bits as without, on cuda-host, whose graphs run what was recorded and nothing before, and on a GPU.
local tycho = require 'tycho'
local ffi = require 'ffi'
local device = require 'tycho.device'
local file = require 'tycho.io.file'
local models = require 'experiments.contextssl.model'
local policies = require 'experiments.contextssl.policies'
local rng = require 'tycho.rng'
local failure = require 'spec.failure'
local files = require 'spec.files'
local on_each_device = require 'spec.on_each_device'
local says = require 'spec.says'
local small_training = require 'spec.small_training'
local tensor = require 'tycho.tensor'
pcall(ffi.cdef, 'int kill(int pid, int signal); int getpid(void);')

local folder = files.folder()

local function refused(fn, ...)
  local message = failure(fn, ...)
  assert.is_nil(message:find '\n')
  return message
end
local function read(path) return assert(file.read(path)) end

describe('a step on the CPU', function()
  it('is the function itself', function()
    local calls = 0
    local step = tycho.graph(function(inputs)
      calls = calls + 1
      return inputs.x:sum():item()
    end)
    for _ = 1, 3 do assert.equal(6, step { x = tycho.tensor { 1, 2, 3 } }) end
    assert.equal(3, calls)
  end)
end)

on_each_device('a captured step on', function(name)
  -- A small training: what make(parts) returns runs each step. Returns all losses, gradients and weights.
  local function train(class, make)
    rng.seed(1)
    local model = tycho.nn.Sequential { tycho.nn.Linear(6, 40), tycho.nn.ReLU(), tycho.nn.Linear(40, 1) }:to(name)
    local optimizer = tycho.optim[class](model:parameters(), { lr = 0.01, weight_decay = 0.1 })
    local calls = 0
    local step = make(function(inputs)
      calls = calls + 1
      optimizer:zero_grad()
      local loss = model(inputs.x:index_select { 2, 0, 1 }):mse(inputs.y) * inputs.factor
      loss:backward()
      optimizer:step()
      return loss, { twice = loss * 2 }
    end)
    local g, out = tycho.generator(1, 1), {}
    for k = 1, 10 do
      optimizer.lr = 0.01 * k
      local rows = k % 3 == 0 and 5 or 3
      local x, y = g:normal_tensor { rows, 6 }:to(name), g:normal_tensor { 3, 1 } -- on the CPU: the step has it on the device
      local loss, more = step { x = x, y = y:to(name), factor = 1 + k % 2, names = { 'a', k > 20 } }
      out[#out + 1] = loss:item()
      assert.equal(2 * loss:item(), more.twice:item())
      for _, p in ipairs(model:parameters()) do out[#out + 1] = p.grad:tolist() end
      tycho.ones({ 3000 }, 'f32', name):add_(1) -- other work between two launches
    end
    for _, p in ipairs(model:parameters()) do out[#out + 1] = p:tolist() end
    return out, calls
  end

  it('gives what the step gives, bit for bit: results, gradients, weights, with a learning rate that moves', function()
    for _, class in ipairs { 'Adam', 'SGD' } do
      local plain, all = train(class, function(fn) return fn end)
      local launched, calls = train(class, tycho.graph)
      assert.same(plain, launched)
      assert.equal(10, all)
      assert.equal(7, calls) -- four signatures, each run once and recorded when it comes again, as three do
    end
  end)

  local function doubled(inputs) return inputs.x * 2 end

  it('has memory of its own, over which no other work runs', function()
    local first = tycho.graph(function(inputs) return ((inputs.x * 2):exp() + 1):log() end)
    local second = tycho.graph(function(inputs) return (((inputs.x * 3):exp() + 2):log() * inputs.x):sum() end)
    local x = tycho.ones({ 700 }, 'f32', name)
    for _ = 1, 3 do first { x = x } end
    for _ = 1, 3 do second { x = x } end
    local others = {}
    for i = 1, 100 do others[i] = tycho.full({ 700 }, i, 'f32', name) end
    first { x = x }
    second { x = x }
    for i, other in ipairs(others) do assert.equal(700 * i, other:sum():item()) end
  end)

  it('runs to its end where it is let go before', function()
    local sum = tycho.zeros({ 2 }, 'f32', name)
    local step = tycho.graph(function(inputs) sum:add_(inputs.x) end)
    for k = 1, 4 do step { x = tycho.tensor({ k, 2 * k }):to(name) } end
    step = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.same({ 10, 20 }, sum:tolist())
  end)

  it('takes tensors of the CPU, and marks its results as gone at the next launch', function()
    local step = tycho.graph(doubled)
    local kept
    for k = 1, 4 do
      local y = step { x = tycho.tensor { k, 2 * k }, on = tycho.zeros({ 1 }, 'f32', name) }
      assert.same({ 2 * k, 4 * k }, y:tolist())
      if k == 4 then says(refused(kept.tolist, kept), 'was freed') end
      kept = y
    end
  end)

  it('is told of in-place changes like those of the step', function()
    local w = tycho.ones({ 2 }, 'f32', name):requires_grad_()
    local step = tycho.graph(function(inputs) tycho.no_grad(w.add_, w, inputs.x) end)
    local inputs = { x = tycho.ones({ 2 }, 'f32', name) }
    for _ = 1, 3 do step(inputs) end
    assert.same({ 4, 4 }, w:tolist())
    local loss = (w * w):sum()
    step(inputs)
    says(refused(loss.backward, loss), 'that a captured step then changed in place')
    assert.same({ 5, 5 }, w:tolist())
  end)

  it('gives results that share memory where the step does', function()
    local function there(list) return tycho.tensor(list, 'f32', name) end
    local turned = tycho.graph(function(inputs)
      local y = (inputs.x * 1):reshape { 2, 2 }
      return y, y:transpose(0, 1)
    end)
    local begun = tycho.graph(function(inputs)
      local y = inputs.x * 1
      return y, y:narrow(0, 0, 2)
    end)
    for _ = 1, 3 do
      local a, b = turned { x = there { 1, 2, 3, 4 } }
      assert.same({ { 2, 5 }, { 5, 8 } }, a:add_(b):tolist())
      a, b = begun { x = there { 3, 4 } }
      local loss = (there { 1, 1 }:requires_grad_() * a):sum()
      b:zero_()
      says(failure(loss.backward, loss), 'mul saved a tensor of shape (2) for backward that fill_ then changed in place')
    end
  end)

  it('changes its inputs where the step does, also one that it has twice', function()
    local function there(list) return tycho.tensor(list, 'f32', name) end
    local mean, version = there { 0 }, 0
    local average = tycho.graph(function(inputs) inputs.mean:mul_(0.5):add_(inputs.x) end)
    for k = 1, 5 do
      average { x = there { 1 }, mean = mean }
      assert.equal(2 - 2 ^ (1 - k), mean:item())
      assert(mean.storage.version > version)
      version = mean.storage.version
    end
    local twice = tycho.graph(function(inputs)
      inputs.x:add_(1)
      return inputs.y * 1
    end)
    for _ = 1, 3 do
      local x = there { 10 }
      assert.same({ 11, 11 }, { twice({ x = x, y = x }):item(), x:item() })
      assert.same({ 10 }, twice({ x = x, y = there { 10 } }):tolist())
    end
  end)

  it('takes what has no bytes of its own, and leaves it as it was', function()
    local nothing, sum = tycho.zeros({ 0, 2 }, 'f32', name), tycho.zeros({ 2 }, 'f32', name)
    local mapped = tensor.borrow(sum.c, sum.type) -- as memory over a mapped file
    local step = tycho.graph(function(inputs)
      tycho.no_grad(mapped.add_, mapped, inputs.x)
      return nothing, mapped
    end)
    for k = 1, 4 do
      local empty, same = step { x = tycho.tensor({ 1, 2 }, 'f32', name) }
      assert.equal(nothing, empty)
      assert.equal(mapped, same)
      assert.same({ k, 2 * k }, sum:tolist())
    end
  end)

  it('keeps apart what has another memory order', function()
    local x = tycho.generator(1):normal_tensor({ 37, 53 }):to(name)
    local step = tycho.graph(function(inputs) return inputs.x:sum { 1 } end)
    local turned = x:transpose(0, 1):contiguous():transpose(0, 1)
    for _, input in ipairs { x, turned } do
      local expected = input:sum({ 1 }):tolist()
      for _ = 1, 3 do assert.same(expected, step({ x = input }):tolist()) end
    end
  end)

  it('tells inputs by their names', function()
    local function there(list) return tycho.tensor(list, 'f32', name) end
    local times = tycho.graph(function(inputs) return inputs.x * (inputs.a or 100) end)
    local signed = tycho.graph(function(inputs) return inputs[1] and inputs[1] * 1 or -inputs['1'] end)
    for _ = 1, 3 do
      times { x = there { 1 }, a = 1, b = 2 }
      signed { there { 5 } }
    end
    assert.equal(100, times({ x = there { 1 }, ['a 1 b'] = 2 }):item())
    assert.equal(-5, signed({ ['1'] = there { 5 } }):item())
  end)

  it('says in one sentence what waited in it or drew numbers, and lives on', function()
    local x = tycho.ones({ 2 }, 'f32', name)
    local g = tycho.generator(1)
    local bodies = { -- in brackets: a tail call has no name
      item = function(inputs) return (inputs.x:sum():item()) end,
      tolist = function(inputs) return (inputs.x:tolist()) end,
      cpu = function(inputs) return (inputs.x:cpu()) end,
      synchronize = function() device.synchronize(name) end,
      uniform = function() return (g:uniform()) end,
      normal_tensor = function() return (g:normal_tensor { 2 }) end,
    }
    for what, body in pairs(bodies) do
      local step = tycho.graph(body)
      step { x = x }
      local message = refused(step, { x = x })
      says(message, 'graph_spec.lua:', ('%s() '):format(what), 'inside a captured step', 'capture=false')
      assert.equal(2, x:sum():item())
    end
  end)

  it('refuses what a launch would not repeat', function()
    local w = tycho.ones({ 2 }, 'f32', name):requires_grad_()
    local adding = tycho.graph(function(inputs) (w * inputs.x):sum():backward() end)
    local inputs = { x = tycho.ones({ 2 }, 'f32', name) }
    adding(inputs)
    says(refused(adding, inputs), 'a captured step adds to a gradient that was there before it')
    local kept
    local keeping = tycho.graph(function(given) kept = tycho.keep(given.x * 2) end)
    keeping(inputs)
    says(refused(keeping, inputs), 'keeps a tensor of 8 bytes')
    says(refused(tycho.graph(doubled), { x = w }), 'inputs are constants')
    says(refused(tycho.graph(doubled), { x = print }), 'got a function')
    assert.truthy(kept)
  end)

  it('drops its graphs where something in depends is another', function()
    local settings = { factor = 2 }
    local step = tycho.graph(function(inputs) return inputs.x * settings.factor end, { depends = { settings } })
    local x = tycho.ones({ 2 }, 'f32', name)
    for k = 1, 9 do
      settings.factor = k > 6 and 5 or k > 3 and 3 or 2
      assert.same({ settings.factor, settings.factor }, step({ x = x }):tolist())
    end
  end)

  it('holds nothing of a model that nobody has any more', function()
    tycho.collect()
    local before = tycho.memory(name).registered
    local function come_and_go()
      local w = tycho.ones({ 1000 }, 'f32', name):requires_grad_()
      local step = tycho.graph(function(inputs)
        w.grad = nil
        local loss = (w * inputs.x):sum()
        loss:backward()
        return loss
      end)
      for _ = 1, 3 do step { x = tycho.ones({ 1000 }, 'f32', name) } end
    end
    come_and_go()
    tycho.collect()
    assert.equal(before, tycho.memory(name).registered)
  end)

  it('does not wait for the device, nor take or leave memory', function()
    local step = tycho.graph(function(inputs) return (inputs.x * 2):sum() end)
    local x = tycho.ones { 1000 }
    local inputs = { x = x, on = tycho.zeros({ 1 }, 'f32', name) }
    for _ = 1, 3 do step(inputs) end
    tycho.collect()
    local waits, live = device.waits(name), tycho.memory(name).registered
    for _ = 1, 20 do tycho.scope(step, inputs) end
    assert.equal(waits, device.waits(name))
    assert.equal(live, tycho.memory(name).registered)
    assert.equal(2000, step(inputs):item())
    assert.equal(waits + 1, device.waits(name))
  end)

  it('says so when memory ends during a capture', function()
    local big = 3e6
    local step = tycho.graph(function(inputs) return tycho.zeros({ big }, 'f32', name) + inputs.x end)
    local x = tycho.ones({ 1 }, 'f32', name)
    step { x = x }
    tycho.collect()
    tycho.set_memory_limit(tycho.memory(name).registered + 1e6, name)
    local message = refused(step, { x = x })
    tycho.set_memory_limit(tycho.lib.unlimited, name)
    says(message, 'out of memory on ' .. name, 'capture=false')
    assert.equal(1, step({ x = x })[2]:item())
  end)
end)

on_each_device('training by graphs on', function(name)
  setup(function()
    small_training.render(folder, 14)
  end)
  teardown(function() os.execute('rm -rf ' .. folder .. '/*') end)
  -- Most numbers of so small a model would be those of its heads.
  local usual = policies.model
  before_each(function()
    function policies.model(config)
      local model = usual(config)
      for head, inputs in pairs { aug_predictor = 16, rel_aug_predictor = 32 } do model[head] = models.mlp(inputs, 32, models.ACTIONS) end
      return model
    end
  end)
  after_each(function() policies.model = usual end)

  local with, smaller, losses, runs = small_training.with, small_training.smaller, policies.losses, 0
  local function run(changes)
    runs = runs + 1
    local settings = { epochs = 4, save_interval = 2, run_dir = ('%s/runs/%d'):format(folder, runs), capture = true }
    for key, value in pairs(changes or {}) do settings[key] = value end
    return small_training.run(folder, name, settings)
  end
  -- Weights, the optimisers' state, counters of the batch norms and the meters: all that a run leaves.
  local function traces(result) return { read(result.path .. '/checkpoint.safetensors'), read(result.path .. '/metrics.jsonl') } end

  for _, amp in ipairs { 'off', 'fp16', 'bf16' } do
    it('gives what it gives without, bit for bit, with a partial batch and two environments; amp=' .. amp, function()
      local calls = 0
      local function counted(...)
        calls = calls + 1
        return smaller(...)
      end
      local _, plain = with({ losses = counted }, run, { amp = amp, capture = false })
      assert.equal(16, calls)
      calls = 0
      local _, captured = with({ losses = counted }, run, { amp = amp })
      assert.is_true(calls <= 8) -- two for each of four signatures
      local a, b = traces(plain), traces(captured)
      assert.is_true(a[1] == b[1])
      assert.equal(a[2], b[2])
    end)
  end

  it('is resumed, by graphs or not, as if there had been no stop', function()
    local _, whole = run { capture = false }
    for _, goes_on in ipairs { true, false } do
      local pairs_policy, calls = policies.pairs, 0
      local _, half, finished = with({ pairs = function(...)
        calls = calls + 1
        if calls == 11 then ffi.C.kill(ffi.C.getpid(), 15) end
        return pairs_policy(...)
      end }, run)
      assert.is_false(finished)
      local _, resumed = run { resume = half.path, run_dir = half.path, capture = goes_on }
      local a, b = traces(whole), traces(resumed)
      assert.is_true(a[1] == b[1])
      assert.equal(a[2], b[2])
    end
  end)

  it('does not wait inside of a step', function()
    for _, amp in ipairs { 'off', 'fp16', 'bf16' } do
      local pairs_policy, seen = policies.pairs, {}
      with({ losses = smaller, pairs = function(...)
        seen[#seen + 1] = device.waits(name)
        return pairs_policy(...)
      end }, run, { amp = amp, epochs = 1, batch_size = 2, env_ratio = { 1, 0, 0 } })
      assert.equal(7, #seen)
      assert.equal(seen[1], seen[7], amp)
    end
  end)

  it('takes a policy or a setting that is replaced on the way into the next step', function()
    local masks = policies.masks
    local function go(capture)
      local steps = 0
      local _, result = with({ losses = losses, masks = function(config, ...)
        steps = steps + 1
        if steps == 9 then config.weight_equiv_loss = 7 end
        if steps == 12 then
          policies.losses = function(...)
            local loss, out = losses(...)
            return loss * 0.5, out
          end
        end
        return masks(config, ...)
      end }, run, { capture = capture, env_ratio = { 1, 0, 0 } })
      return read(result.path .. '/simclr_resnet18_epoch4.pt')
    end
    local plain = go(false)
    assert.is_true(plain == go(true))
    local _, result = run { env_ratio = { 1, 0, 0 } }
    local unchanged = read(result.path .. '/simclr_resnet18_epoch4.pt')
    assert.is_false(plain == unchanged)
  end)

  it('says what a policy waited for, and that capture=false goes without', function()
    local function nosy(...)
      local loss, out = losses(...)
      assert(loss:item() < 1e6)
      return loss, out
    end
    local message = refused(with, { losses = nosy }, run, { env_ratio = { 1, 0, 0 } })
    says(message, 'graph_spec.lua:', 'item() waits for the device inside a captured step', 'capture=false')
    local _, result = with({ losses = nosy }, run, { capture = false })
    assert.truthy(read(result.path .. '/status.json'):find 'finished')
  end)

  it('runs step by step where a person looks for NaN', function()
    local _, plain = run { capture = false, epochs = 2 }
    local _, looked = run { break_on_nan = true, epochs = 2 }
    tycho.set_break_on_nan(false)
    assert.is_true(traces(plain)[1] == traces(looked)[1])
  end)
end)
