-- Tensors: the sizes that views take, in-place changes from what they change, and what is refused in one sentence.
local tycho = require 'tycho'
local lib = require 'tycho.lib'
local failure = require 'spec.failure'
local says = require 'spec.says'

local nan = 0 / 0
local function counting(shape)
  local n = 1
  for _, size in ipairs(shape) do n = n * size end
  return tycho.arange(n, 'f32'):reshape(shape)
end
local function refuses(text, fn, ...) says(failure(fn, ...), text) end

describe('a tensor beside the inputs of an op', function()
  local x = counting { 2, 3 }
  local q = counting { 1, 2, 2, 4 }
  local image = tycho.ones({ 2, 2, 2, 3 }, 'u8')
  local w = tycho.ones { 3 }
  local takers = {
    mask = function(t) return q:attention(q, q, { mask = t }) end,
    memory_k = function(t) return q:attention(q, q, { memory_k = t, memory_v = t }) end,
    memory_v = function(t) return counting({ 1, 2, 6 }):self_attention(1, { memory_v = t }) end,
    running_mean = function(t) return x:batch_norm(w, w, nil, { running_mean = t, training = true }) end,
    running_var = function(t) return x:batch_norm(w, w, nil, { running_mean = w, running_var = t }) end,
    index = function(t) return x:index_select(t) end,
    target = function(t) return x:cross_entropy(t) end,
    ['the gradient'] = function(t) return (tycho.ones({ 2 }):requires_grad_() * 2):backward(t) end,
    ['normalize: index'] = function(t) return require('tycho.io.image').normalize(image, { 0, 0, 0 }, { 1, 1, 1 }, t) end,
    ['a gradient'] = function(t)
      local p = tycho.ones({ 2 }):requires_grad_()
      p.grad = t
      tycho.optim.SGD({ p }):step()
    end,
  }
  for name, take in pairs(takers) do
    it(('is refused where it is none or was freed: %s'):format(name), function()
      says(failure(take, 'a'), name .. ' must be ', 'got string')
      local freed
      tycho.scope(function() freed = tycho.ones { 2 } end)
      says(failure(take, freed), 'this tensor of shape (2) was freed when its scope ended; return it from the scope, or say tycho.keep(x) there')
    end)
  end

  it('is refused as a list that looks like a mask', function()
    says(failure(takers.mask, { { 1, 0 }, { 1, 1 } }), 'attention: mask must be a tensor, got table')
  end)

  it('is marked as changed where the op changes it', function()
    local mean = tycho.ones({ 3 }):requires_grad_()
    local before = tycho.no_grad(function() return mean * 1 end)
    local loss = (tycho.ones({ 3 }):requires_grad_() * before):sum()
    x:batch_norm(w, w, nil, { running_mean = before, training = true })
    refuses('mul saved a tensor of shape (3) for backward that batch_norm then changed in place', loss.backward, loss)
    refuses('batch_norm: in-place change of a tensor that is part of a gradient', x.batch_norm, x, w, w, nil, { running_mean = mean,
      training = true })
  end)
end)

describe('an assignment by number', function()
  it('is refused, as it would change nothing', function()
    local x = counting { 2, 3 }
    refuses('a tensor takes no assignment by number; say x[0]:fill_(value) or :copy_(tensor)', function() x[0] = 7 end)
    refuses('a tensor takes no assignment by number', function() x[0][1] = 7 end)
    x.label = 'kept'
    assert.equal('kept', x.label)
  end)
end)

describe('a view', function()
  it('keeps the sizes that expand is not told', function()
    local x = tycho.tensor { { 1 }, { 2 } }
    assert.same({ { 1, 1, 1 }, { 2, 2, 2 } }, x:expand({ -1, 3 }):tolist())
    assert.same({ { { 1, 1 }, { 2, 2 } } }, x:expand({ 1, -1, 2 }):tolist())
  end)

  it('refuses sizes that are none', function()
    local x = counting { 6 }
    for _, bad in ipairs { { 2.5, 2 }, { 1, 0.5 }, { nan, 1 }, { 0, nan }, { -1, 2 }, { 5, 2 } } do
      refuses('narrow: start ', x.narrow, x, 0, bad[1], bad[2])
    end
    for _, shape in ipairs { { -2, -3 }, { 1.5, 4 }, { nan }, { 1 / 0 }, { 'a' } } do
      for _, name in ipairs { 'reshape', 'expand' } do refuses(name .. ': sizes must be whole numbers >= 0, got {', x[name], x, shape) end
    end
    refuses('reshape: (6) has 6 elements, which do not fit {-1, -1}', x.reshape, x, { -1, -1 })
    refuses('reshape: (6) has 6 elements, which do not fit {-1, -1, -1}', x.reshape, x, { -1, -1, -1 })
    refuses('expand: (6) does not broadcast to {-1, 6}', x.expand, x, { -1, 6 })
    for _, name in ipairs { 'reshape', 'expand' } do
      refuses(name .. ': a tensor has at most 6 dims, got 17', x[name], x, { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 6 })
      refuses(name .. ': expected a list of sizes such as {2, 3}, got number', x[name], x, 3, 2)
    end
    refuses('permute: expected a list of dims such as {1, 0}, got number', x.permute, x, 1, 0)
    local cube = counting { 2, 3, 4 }
    for _, order in ipairs { { 1, 1, 2 }, { 2, 2, 2 }, { 0, 0, 1 }, { 0, 1 }, { 0, 1, 2, 2 }, { 0, -3, 1 } } do
      refuses(('permute: {%s} must name each of the 3 dims of (2, 3, 4) once'):format(table.concat(order, ', ')), cube.permute, cube, order)
    end
    refuses('expand: a tensor of 1.84467e+19 elements is too large', counting({ 1 }).expand, counting { 1 }, { 2^32, 2^32 })
    refuses('empty: sizes must be whole numbers >= 0, got {1.5}', tycho.empty, { 1.5 })
  end)

  it('of nothing is a tensor, too', function()
    assert.same({ 2, 0 }, tycho.zeros({ 2, 0 }).shape)
    local y = tycho.linear(tycho.empty { 3, 0 }, tycho.empty { 2, 0 }, tycho.tensor { 1, 2 })
    assert.same({ { 1, 2 }, { 1, 2 }, { 1, 2 } }, y:tolist())
  end)

  it('of whole numbers takes no others', function()
    for dtype, bad in pairs { u8 = { 256, -1 }, i32 = { 2^31, -2^31 - 1 }, i64 = { 2^63, -2^64 } } do
      for _, value in ipairs(bad) do
        refuses(('tensor: %s takes numbers from '):format(dtype), tycho.tensor, { value }, dtype)
        refuses(('fill_: %s takes numbers from '):format(dtype), tycho.full, { 2 }, value, dtype)
      end
    end
    refuses('fill_: i64 takes whole numbers, got 0.5', tycho.full, { 2 }, 0.5, 'i64')
    assert.same({ 0, 255 }, tycho.tensor({ 0, 255 }, 'u8'):tolist())
    assert.same({ -2^31, 2^31 - 1 }, tycho.tensor({ -2^31, 2^31 - 1 }, 'i32'):tolist())
    refuses('tensor: i64 takes whole numbers, got 0.5', tycho.tensor, { 1, 0.5 }, 'i64')
    local x = counting { 2, 3 }
    refuses('tensor: i64 takes whole numbers, got 0.5', x.index_select, x, { 0.5 })
    refuses('tensor: i64 takes whole numbers, got 1.5', x.cross_entropy, x, { 0, 1.5 })
    refuses('tensor: expected numbers, got a tensor; tycho.stack joins tensors', tycho.tensor, { x[0], x[1] })
  end)
end)

describe('an op', function()
  it('over the last dim alone says so of another', function()
    local x = counting { 2, 3 }
    assert.same(x:softmax():tolist(), x:softmax(-1):tolist())
    for _, name in ipairs { 'softmax', 'max' } do refuses(name .. ': it goes over the last dim only, got dim 0 of shape (2, 3)', x[name], x, 0) end
  end)

  it('takes whole steps, which max_pool2d has of its own', function()
    local x = counting { 1, 1, 4, 4 }
    assert.same({ { { { 5, 7 }, { 13, 15 } } } }, x:max_pool2d(2):tolist())
    refuses('conv2d: stride must be a whole number, got 1.5', x.conv2d, x, tycho.ones { 1, 1, 2, 2 }, 1.5)
    refuses('max_pool2d: kernel must be a whole number, got a', x.max_pool2d, x, 'a', 1)
  end)

  it('pools images whose elements 31 bits count', function()
    local function stand_in(dtype, side) -- of which the shape alone is looked at
      local t = tycho.empty_image({ 1, 1, 1, 1 }, dtype)
      for i, size in ipairs { 1, 2, side, side } do t.c.shape[i - 1] = size end
      for i, step in ipairs { 2 * side * side, 1, 2 * side, 2 } do t.c.stride[i - 1] = step end
      return t
    end
    local x, y, index = stand_in('f32', 32768), stand_in('f32', 16384), stand_in('u8', 16384)
    refuses('max_pool2d: an image may have 2^31 - 1 elements, got x of shape (1, 2, 32768, 32768)', function()
      lib.check(lib.cpu.ty_max_pool2d(y.c, index.c, x.c, 2, 2, 0), lib.cpu)
    end)
  end)

  it('takes heads and numbers that can be', function()
    local x = counting { 2, 3, 4 }
    for _, name in ipairs { 'reshape_heads', 'self_attention' } do
      refuses(name .. ': heads must be a whole number, got nil', x[name], x)
      refuses(name .. ': heads must be at least 1, got 0', x[name], x, 0)
    end
    refuses('normalize: eps must be a number, got a', x.normalize, x, 'a')
    refuses('layer_norm: eps must be a number, got a', x.layer_norm, x, tycho.ones { 4 }, tycho.ones { 4 }, 'a')
    refuses('batch_norm: momentum must be a number, got a', x[0].batch_norm, x[0], tycho.ones { 4 }, tycho.ones { 4 }, nil,
      { training = true, momentum = 'a' })
    refuses('stack: expected a list of tensors, such as {a, b}', tycho.stack, 1)
    refuses('stack: expected a list of tensors, such as {a, b}', tycho.stack, x)
    refuses('stack: entry 2 of the list must be a tensor, got number', tycho.stack, { x, 1 })
  end)

  it('takes functions, tensors and sizes where it needs them', function()
    for name, fn in pairs { scope = tycho.scope, no_grad = tycho.no_grad, with_grad = require('tycho.autograd').with_grad } do
      refuses(name .. ': expected a function, got nil', fn)
      refuses(name .. ': expected a function, got string', fn, 'a')
      assert.equal(3, fn(setmetatable({}, { __call = function(_, x) return x end }), 3))
    end
    refuses('keep: expected a tensor, got number', tycho.keep, 3)
    refuses('rearrange: expected sizes by name, such as { v = 2 }, got number', counting({ 6, 2 }).rearrange, counting { 6, 2 },
      '(a b) c -> a b c', 2)
  end)

  it('says what it computes with', function()
    local x = tycho.tensor({ 1, 2 }, 'i64')
    refuses("add: the output must be float32, got int64 (2); convert it with :to('f32')", function() return x + 1 end)
    refuses('sum: expected a dim or a list of dims, got string', counting({ 2 }).sum, counting { 2 }, 'a')
  end)

  it('returns one value where it has one', function() assert.equal(1, select('#', counting({ 2, 2 }):matmul(counting { 2, 2 }))) end)
end)

describe('an in-place change', function()
  it('reads what stood there before, where it changes its own source', function()
    local x = tycho.tensor { { 2, 4 }, { 6, 8 } }
    assert.same({ { 1, 1 }, { 3, 2 } }, x:clone():div_(x[0]):tolist())
    assert.same({ { 1, 1 }, { 3, 2 } }, x:div_(x[0]):tolist())
    x = counting { 3, 3 }
    assert.same({ { 0, 3, 6 }, { 1, 4, 7 }, { 2, 5, 8 } }, x:copy_(x:transpose(0, 1)):tolist())
    x = counting { 5 }
    x:narrow(0, 1, 4):copy_(x:narrow(0, 0, 4))
    assert.same({ 0, 0, 1, 2, 3 }, x:tolist())
    x:add_(x)
    assert.same({ 0, 0, 2, 4, 6 }, x:tolist())
  end)

  it('is refused where elements share memory', function()
    local x = tycho.zeros({ 1 }):expand { 4 }
    for _, name in ipairs { 'copy_', 'add_' } do
      refuses(name .. ': elements of this expanded tensor share memory; change a clone', x[name], x, counting { 4 })
    end
    refuses('fill_: elements of this expanded tensor', x.fill_, x, 1)
  end)

  it('is refused where the gradient of its source would be lost', function()
    local w = tycho.tensor({ 1, 2 }):requires_grad_()
    local total = tycho.zeros {}
    for _, name in ipairs { 'copy_', 'add_' } do
      refuses(name .. ': an in-place change does not carry the gradient of its source; detach it', total[name], total, w:square():sum())
    end
    total:add_(w:square():sum():detach())
    tycho.no_grad(function() total:add_(w:sum()) end)
    assert.equal(8, total:item())
  end)

  it('says what it takes', function()
    local x = counting { 2 }
    refuses('fill_: expected a number, got string', x.fill_, x, 'a')
    refuses('copy_: expected a tensor, got number; fill_ takes a number', x.copy_, x, 5)
    refuses('add_: expected a tensor or a number, got string', x.add_, x, 'a')
  end)

  it('of the classes or the rows that backward reads is told', function()
    local x = tycho.ones({ 2, 3 }):requires_grad_()
    for name, index in pairs { cross_entropy = tycho.tensor({ 0, 1 }, 'i64'), index_select = tycho.tensor({ 1, 1 }, 'i64') } do
      local loss = x[name](x, index):sum()
      index:fill_(0)
      says(failure(loss.backward, loss), name .. ' saved a tensor of shape (2) for backward that fill_ then changed in place')
    end
  end)
end)
