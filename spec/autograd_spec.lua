-- The tape, memory and random numbers beyond single ops.
local ffi = require 'ffi'
local tycho = require 'tycho'
local lib = require 'tycho.lib'
local failure = require 'spec.failure'
ffi.cdef 'int raise(int signal);'

local function says(text, fn, ...)
  local message = failure(fn, ...)
  assert(message:find(text, 1, true), message)
end

describe('backward', function()
  it('adds up gradients that meet', function()
    local x = tycho.tensor({ 2 }, 'f64'):requires_grad_()
    local y = x * x
    ;(y * y + y + x + x):sum():backward()
    assert.equal(4 * 8 + 2 * 2 + 2, x.grad:item())
  end)
  it('hands a rule that adds by itself the second part of its gradient, and frees it', function()
    local parts
    local doubled = require('tycho.op').new { name = 'doubled', inputs = { 'x' },
      forward = function(ctx, x)
        ctx.adds = true
        return x * 2
      end,
      backward = function(ctx, dy)
        parts = ctx.more and { dy:sum():item(), ctx.more:sum():item() }
        return (dy + ctx.more) * 2
      end }
    local x = tycho.ones({ 1000 }, 'f64'):requires_grad_()
    local y = doubled(x)
    local loss, start = (y * 3 + y * 5):sum(), tycho.memory().registered
    collectgarbage 'stop'
    local ok, message = pcall(loss.backward, loss)
    local kept = tycho.memory().registered - start
    collectgarbage 'restart'
    assert(ok, message)
    table.sort(parts)
    assert.same({ 3000, 5000 }, parts)
    assert.equal(16000, x.grad:sum():item())
    assert(kept < 2 * 8000, kept) -- x.grad has 8000 bytes
  end)
  it('adds to no gradient that is a part of another', function()
    local x = tycho.ones({ 2, 2 }, 'f64'):requires_grad_()
    local h = x * 1
    local direct = (h * tycho.tensor({ { 10, 20 }, { 30, 40 } }, 'f64')):sum()
    local joined = tycho.cat { h:sum(0), tycho.zeros({ 2 }, 'f64') } * tycho.tensor({ 1, 2, 3, 4 }, 'f64')
    ;(direct + joined:sum()):backward()
    assert.same({ { 11, 22 }, { 31, 42 } }, x.grad:tolist())
  end)
  it('begins anew after one that failed', function()
    local x, factor = tycho.ones({ 2 }):requires_grad_(), tycho.tensor { 3, 3 }
    local doubled = x * 2
    local loss = (doubled:exp() * factor):sum() + doubled:sum()
    factor:fill_(9)
    says('mul saved a tensor of shape (2) for backward that fill_ then changed in place', loss.backward, loss)
    x.grad = nil
    doubled:sum():backward()
    assert.same({ 2, 2 }, x.grad:tolist())
  end)
  it('goes through a list of any length', function()
    local x, rows = tycho.ones({ 1 }):requires_grad_(), {}
    for i = 1, 9000 do rows[i] = x end
    tycho.cat(rows):sum():backward()
    assert.equal(9000, x.grad:item())
  end)
  it('of an op that lists gradients says what it expects', function()
    local first = require('tycho.op').new { name = 'first', inputs = { 'list' }, list = true, forward = function(_, list) return list[1] * 1 end,
      backward = function(_, dy) return dy end }
    local y = first { tycho.ones({ 2 }):requires_grad_() }
    says('first backward: expected a list of gradients, got a tensor', y.backward, y, tycho.ones { 2 })
  end)
  it('reads the layouts that views give', function()
    local q = tycho.ones({ 1, 1, 3, 4 }):requires_grad_()
    tycho.attention(q, q, q):sum(2):square():sum():backward() -- all rows of the gradient are the same memory
    assert.same({ 1, 1, 3, 4 }, q.grad.shape)
    local one = tycho.generator(1):normal_tensor { 1, 1, 1, 4 }
    local many = one:expand { 1, 1, 3, 4 }
    assert.same(tycho.attention(many:clone(), many, many):tolist(), tycho.attention(many, many, many):tolist())
    local x = tycho.ones({ 2, 3, 3 }):requires_grad_()
    ;(x:self_attention(1):permute { 2, 0, 1 } * tycho.ones { 1, 2, 3 }):sum():backward()
    assert.equal(6, x.grad:sum():item()) -- of the values, whose mean each row is
  end)
  it('keeps no more than the shape of what a view or rows are taken from', function()
    local x, columns = tycho.ones({ 1024, 256 }):requires_grad_(), tycho.tensor({ 0, 1 }, 'i64')
    for name, take in pairs {
      narrow = function(y) return y:narrow(0, 1, 1):clone() end, select = function(y) return y:select(1, 2):clone() end,
      index_select = function(y) return y:index_select(columns) end, expand = function(y) return y:expand({ 2, -1, -1 }):sum() end,
      diagonal = function(y) return y:diagonal():clone() end,
    } do
      collectgarbage()
      tycho.collect()
      local before = tycho.memory().registered
      local y = tycho.scope(function() return take(x * 2) end)
      local kept = tycho.memory().registered - before
      assert(kept < 2^16, ('%s: %d bytes'):format(name, kept))
      y:sum():backward()
      x.grad = nil
    end
  end)
  it('accumulates into .grad', function()
    local x = tycho.tensor({ 3 }, 'f64'):requires_grad_()
    ;(x * 2):sum():backward()
    ;(x * 5):sum():backward()
    assert.equal(7, x.grad:item())
  end)
  it('gives a gradient in the leaf\'s own memory order', function()
    local image = tycho.empty_image({ 1, 2, 3, 3 }):fill_(1):requires_grad_()
    image:sum():backward()
    assert.is_true(image.grad:is_image())
    assert.equal(18, image.grad:sum():item())
  end)
  it('gives a leaf the gradient that came through views, and no copy of it', function()
    local leaf, factor = tycho.ones({ 500, 500 }):requires_grad_(), tycho.ones { 250000 }
    local loss = (leaf:reshape({ 250000 }) * factor):sum()
    tycho.lib.cpu.ty_memory_reset_peak()
    local before = tycho.memory().live
    loss:backward()
    assert(tycho.memory().peak - before < 1.5e6)
    assert.equal(250000, leaf.grad:sum():item())
  end)
  it('refuses a second run through the same graph', function()
    local x = tycho.tensor({ 3 }):requires_grad_()
    local y = (x * x):sum()
    y:backward()
    says('a second time', y.backward, y)
  end)
  it('asks for a gradient of what is no scalar', function()
    local x = tycho.tensor({ 1, 2 }):requires_grad_()
    says('expected a scalar loss, got shape (2)', function() (x * x):backward() end)
  end)
  it('goes through a change of dtype and through the largest of a row', function()
    local x = tycho.tensor({ { 1, 5 }, { 7, 7 } }):requires_grad_();
    (x:to('f64'):max() * tycho.tensor({ 2, 3 }, 'f64')):sum():backward()
    assert.same({ { 0, 2 }, { 3, 0 } }, x.grad:tolist())
    assert.equal('f32', x.grad.dtype)
    assert.is_nil(x:to('i64').node)
  end)
  it('says when nothing was recorded', function()
    says('no gradient was recorded', function() (tycho.ones { 2 } * 2):sum():backward() end)
  end)
  it('names both ops when a saved tensor was changed in place', function()
    local x, y = tycho.tensor({ 3 }):requires_grad_(), tycho.tensor { 4 }
    local z = x * y
    y:fill_(0)
    says('mul saved a tensor of shape (1) for backward that fill_ then changed in place', function() z:sum():backward() end)
  end)
  it('names itself where it added to a gradient that was saved', function()
    local w, v = tycho.tensor({ 3 }):requires_grad_(), tycho.tensor({ 2 }):requires_grad_()
    local function add() (w * 2):sum():backward() end
    add()
    local loss = (v * w.grad):sum()
    add()
    says('mul saved a tensor of shape (1) for backward that backward then changed in place', function() loss:backward() end)
  end)
  it('refuses in-place changes of what a gradient flows through', function()
    local x = tycho.tensor({ 3 }):requires_grad_()
    says('add_: in-place change of a tensor that is part of a gradient', function() x:add_(1) end)
    tycho.no_grad(function() x:add_(1) end)
    assert.equal(4, x:item())
  end)
  it('no_grad ends with its function, errors included', function()
    pcall(tycho.no_grad, function() error('x') end)
    local x = tycho.tensor({ 3 }):requires_grad_()
    assert.is_not_nil((x * 2).node)
    tycho.no_grad(function() assert.is_nil((x * 2).node) end)
  end)
  it('gives the error the line of the caller', function()
    assert(failure(function() return tycho.ones { 2 } + tycho.ones { 3 } end):find('^%.?/?spec/autograd_spec%.lua:%d+: add:'))
  end)
end)

describe('memory', function()
  it('says when a freed tensor is used', function()
    local leaked
    tycho.scope(function() leaked = tycho.ones { 2, 2 } end)
    says('this tensor of shape (2, 2) was freed when its scope ended', function() return leaked + 1 end)
  end)
  it('keeps what a scope returns, in tables too', function()
    local out = tycho.scope(function() return { a = tycho.ones { 2 }, b = tycho.ones { 3 } * 2 } end)
    assert.equal(2, out.a:sum():item())
    assert.equal(6, out.b:sum():item())
  end)
  it('keeps for backward what it needs of a scope, and frees the rest', function()
    local w = tycho.tensor({ 3, 5 }):requires_grad_()
    local function compute(inside)
      inside.read = w * w
      inside.unread = inside.read * 2
      return ((inside.unread + 1) * inside.read):sum()
    end
    compute({}):backward()
    local expected = w.grad
    w.grad = nil
    tycho.collect()
    local before = tycho.memory().registered
    for depth = 1, 2 do
      tycho.scope(function()
        local inside = {}
        local y = depth == 1 and tycho.scope(compute, inside) or tycho.scope(function() return tycho.scope(compute, inside) * 1 end)
        says('was freed when its scope ended', function() return inside.unread + 1 end)
        assert.equal(34, inside.read:sum():item())
        y:backward()
        says('was freed', function() return inside.read + 1 end)
        assert.equal(0, w.grad:sub(expected):abs():sum():item())
        w.grad.storage:free()
        w.grad = nil
      end)
      assert.equal(before, tycho.memory().registered)
    end
  end)
  it('frees with the scope around it what a scope left to the tape', function()
    local w = tycho.tensor({ 3, 5 }):requires_grad_()
    local before = tycho.memory().registered
    tycho.scope(function() tycho.scope(function() return (w * w):exp() end) end)
    assert.equal(before, tycho.memory().registered)
  end)
  it('survives an error inside a scope', function()
    pcall(tycho.scope, function()
      local x = tycho.ones { 10 }
      error(x.shape[1])
    end)
    tycho.collect()
    assert.equal(5, tycho.ones({ 5 }):sum():item())
  end)
  it('sweeps dead tensors without a scope', function()
    tycho.collect()
    local before = tycho.memory().registered
    for _ = 1, 100 do tycho.ones { 1000 } end
    tycho.collect()
    assert.equal(before, tycho.memory().registered)
  end)
  it('takes what the machine has left, and no more', function()
    local storages, cpu = require 'tycho.storage', lib.devices.cpu
    local available, limit = storages.available, cpu.limit
    storages.available = function() return 5e6 end
    cpu.limit = 0 -- it seems to end
    local x = tycho.ones { 1000, 1000 }
    assert.equal(1e6, x:sum():item())
    local message = failure(tycho.ones, { 1500, 1000 })
    storages.available, cpu.limit = available, limit
    assert(message:find('out of memory on cpu: asked for 6.0 MB', 1, true), message)
    assert.equal(1.5e6, tycho.ones({ 1500, 1000 }):sum():item())
  end)
  it('names the bytes when there are no more', function()
    local limit = tycho.memory().limit
    tycho.collect()
    says('set_memory_limit: expected a number of bytes, got a', function() tycho.set_memory_limit 'a' end)
    tycho.set_memory_limit(tycho.memory().registered + 2^20)
    local message = failure(tycho.ones, { 1024, 1024 })
    tycho.set_memory_limit(limit)
    assert(message:find('out of memory on cpu: asked for 4.2 MB', 1, true), message)
    assert.equal(3, tycho.ones({ 3 }):sum():item())
  end)
  it('lives on when an op meets an interrupt', function()
    lib.on_interrupt('raise')
    ffi.C.raise(2)
    local message = failure(function()
      for _ = 1, 1e6 do tycho.ones { 10 } end
    end)
    lib.on_interrupt(nil)
    assert.equal('interrupted', message)
    assert.equal(3, tycho.ones({ 3 }):sum():item())
  end)
end)

describe('random numbers', function()
  it('are Philox 4x32-10 by its published answers', function()
    local cases = {
      { { 0, 0, 0, 0 }, 0, 0, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
      { { 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff }, 0xffffffff, 0xffffffff, { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
      { { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 }, 0xa4093822, 0x299f31d0, { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
    }
    for _, case in ipairs(cases) do
      local counter = ffi.new('uint32_t[4]', case[1])
      lib.cpu.ty_philox_raw(counter, case[2], case[3])
      for i = 1, 4 do assert.equal(case[4][i], tonumber(counter[i - 1])) end
    end
  end)
  it('do not depend on threads, agree in both precisions, and differ by stream', function()
    local function draw(stream, dtype) return tycho.generator(5, stream):normal_tensor({ 40000 }, dtype) end
    local all, threads = draw(1), tycho.threads()
    tycho.set_threads(1)
    local one = draw(1)
    tycho.set_threads(threads)
    assert.equal(0, (all - one):abs():max():item())
    assert(math.abs((draw(1, 'f64'):to('f32') - all):abs():max():item()) == 0)
    assert.not_equal(0, (draw(2) - all):abs():max():item())
    assert(math.abs(all:mean():item()) < 0.02 and math.abs(all:square():mean():item() - 1) < 0.03)
  end)
  it('choose and permute without repeats', function()
    local g = tycho.generator(1, 1)
    for _, list in ipairs { g:permutation(20), g:choose(20, 20), g:choose(7, 50) } do
      local seen = {}
      for _, i in ipairs(list) do
        assert(i >= 0 and i < 50 and not seen[i])
        seen[i] = true
      end
    end
  end)
end)
