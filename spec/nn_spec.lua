-- Layers and optimisers against published sizes and independent formulas.
local tycho = require 'tycho'
local failure = require 'spec.failure'
local on_each_device = require 'spec.on_each_device'
local says = require 'spec.says'

describe('ResNet', function()
  -- torchvision's parameter counts without the classifier.
  local published = { [18] = 11176512, [34] = 21284672, [50] = 23508032 }
  for depth, count in pairs(published) do
    it(depth .. ' has the published number of parameters and torchvision\'s names', function()
      local net = tycho.nn.ResNet(depth, 64)
      assert.equal(count, net:num_parameters())
      local names = {}
      for _, entry in ipairs(net:state_dict()) do names[entry[1]] = entry[2].shape end
      assert.same({ 64, 3, 7, 7 }, names['conv1.weight'])
      local last = depth == 50 and { 2048, 1024, 1, 1 } or { 512, 256, 1, 1 }
      assert.same(last, names['layer4.0.downsample.0.weight'])
      assert.same({}, names['layer4.0.downsample.1.num_batches_tracked'])
      assert.equal(depth == 50 and 2048 or 512, net.features)
    end)
  end
  it('keeps torchvision\'s order', function()
    local names = {}
    for i, entry in ipairs(tycho.nn.ResNet(18, 4):state_dict()) do names[i] = entry[1] end
    assert.equal('conv1.weight bn1.weight bn1.bias bn1.running_mean bn1.running_var bn1.num_batches_tracked layer1.0.conv1.weight',
      table.concat(names, ' ', 1, 7))
    assert.equal('layer4.1.bn2.num_batches_tracked', names[#names])
    names = {}
    for i, entry in ipairs(tycho.nn.TransformerBlock(8, 2):state_dict()) do names[i] = entry[1] end
    assert.equal('ln_1.weight ln_1.bias attn.c_attn.weight attn.c_attn.bias attn.c_proj.weight attn.c_proj.bias ln_2.weight ln_2.bias '
      .. 'mlp.c_fc.weight mlp.c_fc.bias mlp.c_proj.weight mlp.c_proj.bias', table.concat(names, ' '))
  end)
  it('restores the mode after evaluating, errors included', function()
    local net = tycho.nn.ResNet(18, 4)
    pcall(net.evaluating, net, function() error('x') end)
    assert.is_true(net.training and net.bn1.training)
    assert.same({ 2, 32 }, net:evaluating(function() return net(tycho.ones { 2, 3, 32, 32 }) end).shape)
  end)
  it('lists what does not fit in a state dict and changes nothing', function()
    local net = tycho.nn.Linear(3, 2)
    local before = net.weight:tolist()
    local message = failure(net.load_state_dict, net, { weight = tycho.ones { 2, 4 }, extra = tycho.ones { 1 } }, 'file.pt')
    assert.equal('file.pt does not fit this model; 1 missing: bias; 1 unexpected: extra; 1 of another shape: weight is (2, 4), expected (2, 3)',
      message)
    assert.same(before, net.weight:tolist())
    message = failure(net.load_state_dict, net, { wieght = tycho.ones { 2, 3 }, ['module.bias'] = tycho.ones { 2 }, bias = tycho.ones { 2 } })
    assert.truthy(message:match('^the state dict does not fit this model; 1 missing: weight; 2 unexpected: .*bias, wieght %(near weight%)$'), message)
    assert.same(before, net.weight:tolist())
  end)
  it('is what state_dict gave, or tensors by name', function()
    local from, to = tycho.nn.Linear(3, 2), tycho.nn.Linear(3, 2)
    to:load_state_dict(from:state_dict())
    assert.same(from.weight:tolist(), to.weight:tolist())
    says(failure(to.load_state_dict, to, 3), 'load_state_dict: expected tensors by name, got number')
    says(failure(to.load_state_dict, to, { weight = from.weight, bias = { 1, 2 } }),
      "load_state_dict: expected tensors by name, but 'bias' is a table")
  end)
  it('is of layers whose sizes are given', function()
    for name, sizes in pairs { Linear = { 3 }, Conv2d = { 3, 4 }, SelfAttention = { 8 }, LayerNorm = {}, BatchNorm2d = {}, TransformerBlock = {} } do
      local layer = name == 'TransformerBlock' and 'LayerNorm' or name
      says(failure(tycho.nn[name], unpack(sizes)), layer .. ': ', ' must be a whole number, got nil')
    end
    says(failure(tycho.nn.Linear, 0, 3), 'Linear: inputs must be at least 1, got 0')
  end)
  it('has each field once, also one that was something else before', function()
    local Layer = tycho.nn.Module.class()
    local layer = Layer()
    layer.norm, layer.w = false, tycho.nn.Module.parameter(tycho.ones { 1 })
    layer.norm, layer.w = tycho.nn.Linear(2, 2), nil
    layer.w = tycho.nn.Module.parameter(tycho.ones { 1 })
    local names = {}
    for i, entry in ipairs(layer:state_dict()) do names[i] = entry[1] end
    assert.same({ 'w', 'norm.weight', 'norm.bias' }, names)
    layer:eval()
    assert.is_false(layer.norm.training)
    says(failure(layer, tycho.ones { 1 }), 'this layer has no forward: write function Layer:forward(x) ... end')
    layer.inner = layer
    says(failure(layer.state_dict, layer), "a module holds itself, as 'inner'")
    says(failure(tycho.nn.Module.class, { scopd = true }), "Module.class: unknown option 'scopd'; did you mean 'scoped'?")
  end)
  it('takes no values between forward and backward unnoticed', function()
    local net, x = tycho.nn.Linear(3, 2), tycho.ones({ 1, 3 }):requires_grad_()
    local loss = net(x):sum()
    net:load_state_dict { weight = tycho.ones { 2, 3 }, bias = tycho.ones { 2 } }
    says(failure(loss.backward, loss), 'linear saved a tensor of shape (2, 3) for backward that copy_ then changed in place')
  end)
  it('ignores what parallel and compiled runs put into names, and causal masks', function()
    local net = tycho.nn.Sequential { tycho.nn.TransformerBlock(8, 2), tycho.nn.Linear(3, 2) }
    local state = require('tycho.io.pt').dict()
    for i, entry in ipairs(net:state_dict()) do
      state:set('module._orig_mod.' .. entry[1]:gsub('^1%.', '1._orig_mod.'), tycho.full(entry[2].shape, i))
    end
    state:set('module._orig_mod.0.attn.bias', tycho.ones { 1, 1, 16, 16 })
    net:load_state_dict(state)
    for i, entry in ipairs(net:state_dict()) do assert.equal(i * entry[2]:numel(), entry[2]:sum():item()) end
    state:set('module._orig_mod.0.attn.bias', tycho.ones { 16 })
    assert.is_false(pcall(net.load_state_dict, net, state))
  end)
end)

describe('a module', function()
  it('goes to devices, not to dtypes', function()
    local layer = tycho.nn.Linear(2, 2)
    local before = layer.weight:tolist()
    for _, bad in ipairs { 'f64', 'f16', 7 } do
      says(failure(layer.to, layer, bad), ("Module:to: expected a device, cpu or cuda, got '%s'"):format(bad))
    end
    assert.same(before, layer:to('cpu').weight:tolist())
  end)

  it('counts a tensor that two layers share once', function()
    local a, b = tycho.nn.Linear(2, 2), tycho.nn.Linear(2, 2)
    b.weight = a.weight
    local net = tycho.nn.Sequential { a, b }
    assert.equal(8, net:num_parameters())
    local before = a.weight:tolist()
    net(tycho.ones { 1, 2 }):sum():backward()
    local gradient = a.weight.grad:tolist()
    tycho.optim.SGD(net:parameters(), { lr = 0.1 }):step()
    assert.near(before[1][1] - 0.1 * gradient[1][1], a.weight:tolist()[1][1], 1e-6)
  end)

  it('of layers in a row takes a list of them', function()
    says(failure(tycho.nn.Sequential, tycho.nn.Linear(2, 5), tycho.nn.Linear(5, 1)), 'Sequential: expected a list of layers')
  end)

  it('refuses arguments that it has no use for', function()
    says(failure(tycho.nn.Linear, 3, 2, false), 'this layer is made with (inputs, outputs); got false as argument 3')
    says(failure(tycho.nn.LayerNorm, 3, 1e-12), 'this layer is made with (width); got 1e-12 as argument 2')
    says(failure(tycho.nn.Conv2d, 3, 2, 3, { stride = 2 }), 'Conv2d: stride must be a whole number, got table')
    assert.is_table(tycho.nn.Linear(3, 2, nil))
  end)

  it('has the mode that it is given, and each of its layers its own behind an evaluation', function()
    local frozen = tycho.nn.BatchNorm2d(2):train(false)
    assert.is_false(frozen.training)
    local net = tycho.nn.Sequential { frozen, tycho.nn.Linear(2, 2) }
    net:evaluating(function() assert.is_false(net:at(1).training) end)
    pcall(net.evaluating, net, error)
    assert.same({ true, false, true }, { net.training, frozen.training, net:at(1).training })
    assert.is_true(net:train(true):at(0).training)
  end)
end)

-- The mean's rounding would be multiplied by 1 / sqrt(eps).
local function layer_norm_of_equal_numbers(name)
  it('is the bias, however large they are', function()
    local bias = tycho.generator(1):normal_tensor({ 7 }):to(name)
    local y = tycho.full({ 2, 7 }, 1000.1, 'f32', name):layer_norm(tycho.ones({ 7 }, 'f32', name), bias)
    for _, row in ipairs(y:tolist()) do assert.same(bias:tolist(), row) end
  end)
end
describe('layer_norm of equal numbers on cpu', function() layer_norm_of_equal_numbers 'cpu' end)
on_each_device('layer_norm of equal numbers on', layer_norm_of_equal_numbers)

describe('batch_norm', function()
  local g = tycho.generator(1)
  local function image(shape) return tycho.empty_image(shape, 'f64'):copy_(g:normal_tensor(shape, 'f64')) end
  local channels = { 19 }
  local x, residual = image { 5, 19, 13, 12 }, image { 5, 19, 13, 12 }
  local weight, bias = g:normal_tensor(channels, 'f64'), g:normal_tensor(channels, 'f64')

  -- Result, gradients and running statistics of fn(x, weight, bias, options).
  local function results(fn, options)
    local leaves = { x:clone():requires_grad_(), weight:clone():requires_grad_(), bias:clone():requires_grad_() }
    options.running_mean, options.running_var = tycho.zeros(channels, 'f64'), tycho.ones(channels, 'f64')
    local y = fn(leaves[1], leaves[2], leaves[3], options)
    y:backward(tycho.generator(3):normal_tensor(y.shape, 'f64'))
    return { y:detach(), leaves[1].grad, leaves[2].grad, leaves[3].grad, options.running_mean, options.running_var }
  end
  local function assert_same(expected, got)
    for i = 1, 6 do
      assert(i > 4 or expected[i]:abs():sum():item() > 1)
      assert.near(0, (expected[i] - got[i]):abs():sum():item(), 1e-9)
    end
  end

  it('that pools is max_pool2d of it', function()
    for _, training in ipairs { true, false } do
      for _, relu in ipairs { true, false } do
        for _, pool in ipairs { { 3, 2, 1 }, { 2 }, { 2, 3 }, { 5, 1, 2 } } do
          local options = { training = training, relu = relu }
          local expected = results(function(a, w, b, o) return a:batch_norm(w, b, nil, o):max_pool2d(unpack(pool)) end, options)
          options.pool = pool
          assert_same(expected, results(function(a, w, b, o) return a:batch_norm(w, b, nil, o) end, options))
        end
      end
    end
    assert(tycho.gradcheck(function(a, w, b) return a:batch_norm(w, b, nil, { training = true, pool = { 3, 2, 1 } }) end,
      { image { 2, 2, 5, 4 }, weight:narrow(0, 0, 2), bias:narrow(0, 0, 2) }) < 1e-6)
  end)

  it('outside training goes back through the statistics that it went forward with', function()
    local options = { running_mean = tycho.zeros({ 1 }, 'f64'), running_var = tycho.ones({ 1 }, 'f64'), eps = 0 }
    local w, values = tycho.ones({ 1 }, 'f64'):requires_grad_(), tycho.tensor({ { 1 }, { 2 } }, 'f64')
    local y = values:batch_norm(w, tycho.zeros({ 1 }, 'f64'), nil, options)
    options.training = true
    values:batch_norm(w, tycho.zeros({ 1 }, 'f64'), nil, options)
    options.running_mean:fill_(5)
    y:sum():backward()
    assert.equal(3, w.grad:item())
  end)

  it('adds up the gradients of its users', function()
    for _, added in ipairs { false, residual } do
      for users = 2, 4 do
        local function split(a, w, b, o)
          local y, sum = a:batch_norm(w, b, added or nil, o), nil
          for i = 1, users do sum = sum and sum + y * i or y * i end
          return sum
        end
        local function whole(a, w, b, o) return a:batch_norm(w, b, added or nil, o) * (users * (users + 1) / 2) end
        assert_same(results(whole, { training = true, relu = true }), results(split, { training = true, relu = true }))
      end
    end
  end)

  it('frees the gradients of its users', function()
    local function kept(fn)
      local loss = fn(x:clone():requires_grad_():batch_norm(weight, bias, nil, { training = true })):sum()
      local start = tycho.memory().registered
      loss:backward()
      return tycho.memory().registered - start
    end
    collectgarbage 'stop'
    local ok, whole, split = pcall(function() return kept(function(y) return y * 5 end), kept(function(y) return y * 2 + y * 3 end) end)
    collectgarbage 'restart'
    assert(ok, whole)
    assert.equal(whole, split)
  end)

  it('says what does not fit, and what it cannot pool', function()
    local function refused(a, r, pool) return failure(a.batch_norm, a, weight, bias, r, { training = true, pool = pool }) end
    says(refused(x, residual, { 3, 2, 1 }), 'batch_norm: with a residual nothing can be pooled; leave pool out and call max_pool2d')
    says(refused(g:normal_tensor({ 5, 19 }, 'f64'), nil, { 3, 2, 1 }), 'batch_norm: x must be (N, C, H, W), got (5, 19)')
    says(refused(x, nil, { 3, 2.5, 1 }), 'batch_norm: stride must be a whole number, got 2.5')
    says(refused(x, nil, 3), 'batch_norm: expected pool = {kernel, stride, padding}, got 3')
    local moments = { training = true, running_mean = tycho.zeros(channels, 'f64'), running_var = tycho.ones(channels, 'f64') }
    says(failure(x.batch_norm, x, weight:narrow(0, 0, 2), bias, nil, moments), 'batch_norm: weight must have shape (19), got (2)')
    assert.same({ 0, 19 }, { moments.running_mean:abs():sum():item(), moments.running_var:sum():item() })
    says(refused(x, nil, { 16 }), 'batch_norm: a kernel of 16x16 does not fit into x of shape (5, 19, 13, 12) with padding 0')
  end)
end)

describe('pair_cross_entropy', function()
  it('is the cross entropy of raised and scaled similarities, a row itself being far below', function()
    local generator, rows, temperature = tycho.generator(1), 40, 0.1
    local values, partners = generator:uniform_tensor({ rows, rows }, 'f64') - 0.4, {}
    for i = 1, rows do partners[i] = i % 2 == 1 and i or i - 2 end
    local itself = tycho.zeros({ rows, rows }, 'f64')
    itself:diagonal():fill_(-1e5)
    for floor, raised in pairs { [-math.huge] = function(s) return s end, [1e-7] = function(s) return s:clamp_min(1e-7) end } do
      local s, t = values:clone():requires_grad_(), values:clone():requires_grad_()
      local expected, got = (raised(s) / temperature + itself):cross_entropy(partners), t:pair_cross_entropy(temperature, floor)
      assert.near(expected:item(), got:item(), 1e-12)
      expected:backward()
      got:backward()
      assert(t.grad:abs():sum():item() > 1)
      assert.near(0, (s.grad - t.grad):abs():sum():item(), 1e-12)
    end
  end)
end)

describe('options', function()
  it('that nobody knows are refused, the nearest named', function()
    local x = tycho.ones { 1, 1, 2, 2 }
    says(failure(x.attention, x, x, x, { masc = 1 }), "attention: unknown option 'masc'; did you mean 'mask'?")
    local w = tycho.ones { 1 }
    says(failure(x.batch_norm, x, w, w, nil, { trainning = true }), "batch_norm: unknown option 'trainning'; did you mean 'training'?")
    says(failure(x.batch_norm, x, w, w), 'batch_norm: outside training running_mean and running_var are needed')
    says(failure(tycho.loss.nt_xent, tycho.ones { 2, 2 }, 0.1, 7), 'nt_xent: expected a table of options, got number')
    says(failure(tycho.loss.nt_xent, tycho.ones { 2, 2 }), 'nt_xent: expected a temperature above 0, got nil')
  end)
end)

describe('optimisers', function()
  it('take parameters and numbers', function()
    local layer = tycho.nn.Linear(2, 2)
    for what, list in pairs { ['a tensor'] = layer.weight, ['a table without any'] = layer, ['nil'] = false } do
      says(failure(tycho.optim.Adam, list or nil), 'optimiser: expected a list of parameters, such as model:parameters(), got ' .. what)
    end
    says(failure(tycho.optim.Adam, { tycho.ones { 1 } }), 'got entry 1, which requires no gradient')
    says(failure(tycho.optim.Adam, layer:parameters(), { lr = '1e-3' }), 'optimiser: lr must be a number, got string 1e-3')
    says(failure(tycho.optim.Adam, layer:parameters(), 0.1), 'optimiser: expected a table of options, got number')
  end)
  local gradients = { 0.5, -1, 0.25, 2 }
  local function run(optimizer, p)
    for _, g in ipairs(gradients) do
      p.grad = tycho.tensor({ g }, 'f64')
      optimizer:step()
    end
    return p:item()
  end
  local function parameter() return tycho.tensor({ 1.5 }, 'f64'):requires_grad_() end

  it('AdamW shrinks the weights beside the gradient', function()
    local p = parameter()
    local got = run(tycho.optim.Adam({ p }, { lr = 0.1, weight_decay = 0.2, decoupled = true }), p)
    local w, m, v = 1.5, 0, 0
    for t, g in ipairs(gradients) do
      m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
      w = w * (1 - 0.1 * 0.2) - 0.1 * (m / (1 - 0.9 ^ t)) / (math.sqrt(v / (1 - 0.999 ^ t)) + 1e-8)
    end
    assert(math.abs(got - w) < 1e-12)
  end)
  it('refuse a state of other parameters, and change nothing', function()
    local optimizer, p = tycho.optim.Adam({ parameter() }), parameter()
    p.grad = tycho.ones({ 1 }, 'f64')
    local other = tycho.optim.Adam({ parameter(), p })
    other:step()
    says(failure(optimizer.load_state_dict, optimizer, other:state_dict(), 'a.safetensors'),
      'a.safetensors does not fit this optimiser: 1.', ' is unexpected; it has 1 parameters with exp_avg, exp_avg_sq and step')
    local ones, step = tycho.ones({ 2 }), tycho.ones({}, 'i64')
    says(failure(optimizer.load_state_dict, optimizer, { ['0.exp_avg'] = ones, ['0.exp_avg_sq'] = ones, ['0.step'] = step }),
      'the state dict does not fit this optimiser: 0.exp_avg is (2), expected (1)')
    says(failure(optimizer.load_state_dict, optimizer, { ['0.step'] = step }), 'of 0.exp_avg and 0.step one is missing')
    assert.same({}, optimizer:state_dict())
    says(failure(tycho.optim.SGD, { p, p }), 'got entry 2, which is entry 1 again')
  end)
  it('forget what a state that is loaded does not have', function()
    local p = parameter()
    local optimizer = tycho.optim.Adam({ p }, { lr = 0.1 })
    run(optimizer, p)
    local before = p:item()
    optimizer:load_state_dict(tycho.optim.Adam({ p }, { lr = 0.1 }):state_dict())
    p.grad = tycho.zeros({ 1 }, 'f64')
    optimizer:step()
    assert.equal(before, p:item())
  end)
  it('SGD has momentum and L2 decay', function()
    local p = parameter()
    local got = run(tycho.optim.SGD({ p }, { lr = 0.1, momentum = 0.9, weight_decay = 0.01 }), p)
    local w, velocity = 1.5, nil
    for _, g in ipairs(gradients) do
      g = g + 0.01 * w
      velocity = velocity and 0.9 * velocity + g or g
      w = w - 0.1 * velocity
    end
    assert(math.abs(got - w) < 1e-12)
  end)
  it('name an unknown option', function()
    local message = failure(tycho.optim.Adam, { tycho.ones({ 1 }):requires_grad_() }, { learning_rate = 1 })
    assert(message:find("optimiser: unknown option 'learning_rate'; expected one of beta1", 1, true), message)
  end)
end)
