-- Optimisers over many parameters at once, and dynamic loss scaling: the same on the CPU and on a device, against formulas written out here.
local tycho = require 'tycho'
local failure = require 'spec.failure'
local on_each_device = require 'spec.on_each_device'
local says = require 'spec.says'

-- What Adam makes of one number under a list of gradients, in double.
local function adam(w, gradients, o)
  local m, v = 0, 0
  for step, g in ipairs(gradients) do
    g = g + o.weight_decay * w
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    w = w - o.lr * (m / (1 - 0.9 ^ step)) / (math.sqrt(v / (1 - 0.999 ^ step)) + 1e-8)
  end
  return w
end
local function sgd(w, gradients, o)
  local velocity
  for _, g in ipairs(gradients) do
    g = g + o.weight_decay * w
    velocity = velocity and o.momentum * velocity + g or g
    w = w - o.lr * velocity
  end
  return w
end

local function optimizers(name)
  -- 300 parameters: more than a launch takes, some larger than a block's share, empty ones, one that gets its first gradient late.
  local function many()
    local g, list = tycho.generator(1, 1), {}
    for i = 1, 300 do
      local size = i == 7 and 0 or i == 8 and 40000 or i % 5 + 1
      list[i] = g:normal_tensor({ size }):to(name):requires_grad_()
    end
    return list
  end
  local function gradient(i, step) return math.sin(i + 17 * step) end
  local function check(make, formula, options)
    local list = many()
    local before = {}
    for i, p in ipairs(list) do before[i] = p:tolist() end
    local optimizer = make(list, options)
    for step = 1, 3 do
      for i, p in ipairs(list) do p.grad = not (i == 9 and step == 1) and tycho.full(p.shape, gradient(i, step), 'f32', name) or nil end
      optimizer:step()
    end
    for i, p in ipairs(list) do
      local gradients = {}
      for step = i == 9 and 2 or 1, 3 do gradients[#gradients + 1] = gradient(i, step) end
      local now = p:tolist()
      for k = 1, #now, 997 do
        assert.near(formula(before[i][k], gradients, options), now[k], 2e-6 * (1 + math.abs(now[k])), ('parameter %d, element %d'):format(i, k))
      end
      if #now > 0 then assert.near(formula(before[i][#now], gradients, options), now[#now], 2e-6 * (1 + math.abs(now[#now]))) end
    end
    return optimizer
  end

  it('take steps of many parameters, each with a count of its own', function()
    local optimizer = check(tycho.optim.Adam, adam, { lr = 0.05, weight_decay = 0.1 })
    local state = optimizer:state_dict()
    assert.equal(3, state['0.step']:item())
    assert.equal(2, state['8.step']:item())
    check(tycho.optim.SGD, sgd, { lr = 0.05, weight_decay = 0.1, momentum = 0.9 })
  end)

  it('save their state and go on from it as if nothing had been', function()
    local function train(interrupted)
      local p = tycho.tensor({ 1, -2, 3 }, 'f32', name):requires_grad_()
      local idle = tycho.ones({ 2 }, 'f32', name):requires_grad_()
      local optimizer = tycho.optim.Adam({ idle, p }, { lr = 0.1 })
      for step = 1, 4 do
        if interrupted and step == 3 then
          local state = optimizer:state_dict()
          assert.is_nil(state['0.step'])
          optimizer = tycho.optim.Adam({ idle, p }, { lr = 0.1 })
          optimizer:load_state_dict(state)
        end
        p.grad = tycho.full({ 3 }, gradient(1, step), 'f32', name)
        optimizer:step()
      end
      return p:tolist()
    end
    assert.same(train(false), train(true))
  end)

  describe('under a loss scale', function()
    local function trainer(options)
      local p = tycho.tensor({ 0.5, -1.5 }, 'f32', name):requires_grad_()
      local optimizer = tycho.optim.Adam({ p }, { lr = 0.1 })
      local scaler = tycho.optim.GradScaler(name, options)
      local function step(factor)
        optimizer:zero_grad()
        scaler:scale((p * factor):sum()):backward()
        scaler:step(optimizer)
        scaler:update()
      end
      return { p = p, optimizer = optimizer, scaler = scaler, step = step }
    end

    it('divide the gradients by it', function()
      for _, class in ipairs { 'Adam', 'SGD' } do
        local function train(scaled)
          local p = tycho.tensor({ 0.5, -1.5 }, 'f32', name):requires_grad_()
          local optimizer = tycho.optim[class]({ p }, { lr = 0.1 })
          local scaler = tycho.optim.GradScaler(name)
          for _ = 1, 3 do
            optimizer:zero_grad()
            local loss = (p * p):sum()
            if scaled then
              scaler:scale(loss):backward()
              assert.near(65536 * 2 * p[0]:item(), p.grad[0]:item(), 1)
              scaler:step(optimizer)
              scaler:update()
            else
              loss:backward()
              optimizer:step()
            end
          end
          return p:tolist()
        end
        assert.same(train(false), train(true)) -- powers of two: not one bit is lost
      end
    end)

    it('tell a loss that was scaled before the scale moved', function()
      local t = trainer()
      local loss = t.scaler:scale((t.p * 2):sum())
      t.scaler:update()
      says(failure(loss.backward, loss), 'mul saved a tensor of shape () for backward that GradScaler:update then changed in place')
    end)

    it('skip a step with a gradient that is not finite, and halve the scale', function()
      for _, bad in ipairs { 1 / 0, 0 / 0 } do
        local t = trainer()
        t.step(1)
        local before, state = t.p:tolist(), t.optimizer:state_dict()
        local moment = state['0.exp_avg']:tolist()
        t.step(bad)
        assert.same(before, t.p:tolist())
        assert.same(moment, t.optimizer.state[1].exp_avg:tolist())
        assert.equal(1, t.optimizer:state_dict()['0.step']:item())
        assert.equal(32768, t.scaler:get_scale())
        assert.equal(1, t.scaler:skipped())
        t.step(1)
        assert.is_not.same(before, t.p:tolist())
        assert.equal(2, t.optimizer:state_dict()['0.step']:item())
      end
    end)

    it('find the one bad number among many', function()
      local p = tycho.zeros({ 50000 }, 'f32', name):requires_grad_()
      local q = tycho.zeros({ 3 }, 'f32', name):requires_grad_()
      local optimizer = tycho.optim.SGD({ q, p }, {})
      q.grad, p.grad = tycho.ones({ 3 }, 'f32', name), tycho.ones({ 50000 }, 'f32', name)
      assert.equal(0, optimizer:find_overflow():item())
      for _, at in ipairs { 0, 16383, 16384, 49999 } do
        p.grad = tycho.ones({ 50000 }, 'f32', name)
        p.grad[at]:fill_(-1 / 0)
        assert.equal(1, optimizer:find_overflow():item(), at)
      end
    end)

    it('double it after growth_interval good steps, but never to infinity', function()
      local t = trainer { init_scale = 4, growth_interval = 3 }
      local scales = {}
      for i, factor in ipairs { 1, 1, 1, 1, 1 / 0, 1, 1, 1, 1 } do
        t.step(factor)
        scales[i] = t.scaler:get_scale()
      end
      assert.same({ 4, 4, 8, 8, 4, 4, 4, 8, 8 }, scales)
      t = trainer { init_scale = 2 ^ 127, growth_interval = 1 }
      t.step(0)
      assert.equal(2 ^ 127, t.scaler:get_scale())
    end)

    it('skip one optimiser for its own gradients, and lower the scale for both', function()
      local p, q = tycho.ones({ 1 }, 'f32', name):requires_grad_(), tycho.ones({ 1 }, 'f32', name):requires_grad_()
      local first, second = tycho.optim.SGD({ p }, { lr = 1 }), tycho.optim.SGD({ q }, { lr = 1 })
      local scaler = tycho.optim.GradScaler(name)
      scaler:scale((p * (1 / 0)):sum() + q:sum()):backward()
      scaler:step(first)
      scaler:step(second)
      scaler:update()
      assert.equal(1, p:item())
      assert.equal(0, q:item())
      assert.equal(32768, scaler:get_scale())
    end)

    it('say in one sentence that every step overflows', function()
      local t = trainer()
      for _ = 1, 19 do t.step(1 / 0) end
      t.scaler:check()
      assert.has_error(function() t.scaler:check(19) end)
      t.step(1 / 0)
      local message = failure(t.scaler.check, t.scaler)
      assert.equal('the gradients of the last 20 steps were not finite in float16, down to a loss scale of 0.0625, and no weight has changed '
        .. 'since; train with amp=bf16 or amp=off, or with a lower learning_rate', message)
      t.step(1)
      t.scaler:check()
      assert.equal(20, t.scaler:skipped())
    end)

    it('keep their state in a checkpoint', function()
      local t = trainer { growth_interval = 3 }
      for _, factor in ipairs { 1 / 0, 1, 1 } do t.step(factor) end
      local other = trainer { growth_interval = 3 }
      other.scaler:load_state_dict(t.scaler:state_dict())
      other.step(1)
      assert.equal(65536, other.scaler:get_scale())
      assert.equal(1, other.scaler:skipped())
      says(failure(tycho.optim.GradScaler, name, { init_scal = 1 }), "GradScaler: unknown option 'init_scal'; did you mean 'init_scale'?")
      says(failure(tycho.optim.GradScaler, name, { growth_factor = 'a' }), 'GradScaler: growth_factor must be a number, got a')
      local message = failure(other.scaler.load_state_dict, other.scaler, {})
      assert.truthy(message:find('no state of the loss scaling', 1, true))
    end)
  end)
end

describe('optimisers on cpu', function() optimizers 'cpu' end)
on_each_device('optimisers on', optimizers)
