-- Two seconds, no files: a tensor, a gradient, a training step that lowers a loss, memory that comes back.
local tycho = require 'tycho'

describe('tiny', function()
  it('adds tensors with broadcasting and counts from 0', function()
    local a = tycho.tensor { { 1, 2, 3 }, { 4, 5, 6 } }
    local b = tycho.tensor { 10, 20, 30 }
    assert.same({ { 11, 22, 33 }, { 14, 25, 36 } }, (a + b):tolist())
    assert.equal(6, a[1][2]:item())
    assert.same({ 2, 3 }, a.shape)
  end)

  it('differentiates a small expression', function()
    local x = tycho.tensor({ 3, -2 }, 'f64'):requires_grad_()
    ;(x * x * x):sum():backward()
    assert.same({ 27, 12 }, x.grad:tolist())
  end)

  it('learns a line', function()
    local g = tycho.generator(1, 1)
    local x = g:normal_tensor { 64, 1 }
    local y = x * 3 + 0.5
    local layer = tycho.nn.Linear(1, 1)
    local optimizer = tycho.optim.Adam(layer:parameters(), { lr = 0.05 })
    local first, last
    for _ = 1, 300 do
      last = tycho.scope(function()
        local loss = layer(x):mse(y)
        optimizer:zero_grad()
        loss:backward()
        optimizer:step()
        return loss:item()
      end)
      first = first or last
    end
    assert.is_true(last < 1e-3 and last < first / 100)
    assert.is_true(math.abs(layer.weight:item() - 3) < 0.05)
  end)

  it('returns memory when a scope ends', function()
    tycho.collect()
    local before = tycho.memory().registered
    tycho.scope(function()
      local x = tycho.ones { 100, 100 }
      for _ = 1, 10 do x = x * 2 end
    end)
    assert.equal(before, tycho.memory().registered)
  end)
end)
