-- Ops written in Lua: loops that LuaJIT compiles, their gradients checked by one call; einsum and rearrange against plain loops.
local tycho = require 'tycho'
local op = require 'tycho.op'
local failure = require 'spec.failure'
local files = require 'spec.files'
local says = require 'spec.says'
local shell = require 'spec.shell'

-- x / (1 + |x|), element by element.
local function record_of()
  local function forward_loop(y, x, n)
    for i = 0, n - 1 do y[i] = x[i] / (1 + math.abs(x[i])) end
  end
  local function backward_loop(dx, dy, x, n)
    for i = 0, n - 1 do dx[i] = dy[i] / (1 + math.abs(x[i])) ^ 2 end
  end
  return {
    name = 'softsign', inputs = { 'x' },
    forward = function(ctx, x)
      x = x:contiguous()
      ctx:save(x)
      local y = tycho.empty(x.shape, x.dtype)
      local from, n = x:data()
      forward_loop((y:data()), from, n)
      return y
    end,
    backward = function(ctx, dy)
      local x, dx = ctx:saved(), tycho.empty(dy.shape, dy.dtype)
      dy = dy:contiguous()
      local from, n = x:data()
      backward_loop((dx:data()), (dy:data()), from, n)
      return dx
    end,
    sample = function(g) return g:normal_tensor({ 3, 4 }, 'f64') end,
  }
end

local folder = files.folder()

local function assert_raises(fn, ...) says(failure(fn), ...) end

describe('an op in Lua', function()
  it('computes, and its gradient is checked by one call', function()
    local record = record_of()
    local softsign = op.new(record)
    local y = softsign(tycho.tensor({ -1, 0, 3 }, 'f64'))
    assert.same({ -0.5, 0, 0.75 }, y:tolist())
    assert(tycho.gradcheck(record) < 1e-6)
    assert.same({ 0.75 }, softsign(tycho.tensor({ { 3, 1 }, { 5, 1 } }):select(1, 0))[0]:reshape({ 1 }):tolist())
  end)

  it('with a wrong gradient is caught', function()
    local record = record_of()
    local right = record.backward
    record.backward = function(ctx, dy) return right(ctx, dy) * 1.001 end
    assert_raises(function() tycho.gradcheck(record) end, 'gradcheck: input 1, element', 'central difference')
  end)

  it('that forgets to return something is named', function()
    local function made(forward, backward)
      return op.new { name = 'mine', inputs = { 'a', 'b?', 'c?' }, forward = forward, backward = backward }
    end
    local function twice(_, a) return a * 2 end
    local x = tycho.ones({ 2 }):requires_grad_()
    for _, arguments in ipairs { { x }, { x, x, x } } do
      local loss = made(twice, function(_, dy) local _ = dy * 2 end)(unpack(arguments)):sum()
      assert_raises(function() loss:backward() end, 'mine backward: it returned nothing; expected a gradient for each input, false for one')
    end
    made(twice, function() return false end)(x):sum():backward()
    local unsaved = made(twice, function(ctx, dy) return dy * ctx:saved() end)(x):sum()
    assert_raises(function() unsaved:backward() end, 'mine backward: nothing was saved; its forward is to call ctx:save(tensors)')
    for _, a in ipairs { x, tycho.ones { 2 } } do
      assert_raises(function() made(function() end)(a) end, 'mine: its forward must return a tensor, got nil')
    end
  end)

  it('with a gradient of another shape, or none, is named', function()
    for given, back in pairs { ['(3)'] = function(dy) return dy:sum(0) end, number = function() return 7 end } do
      local record = { name = 'double', inputs = { 'x' }, forward = function(_, x) return x + x end,
        backward = function(_, dy) return back(dy) end }
      local y = op.new(record)(tycho.ones({ 2, 3 }):requires_grad_()):sum()
      says(failure(y.backward, y), 'double backward: expected a gradient of shape (2, 3), got ' .. given)
    end
  end)

  it('may return its input, and nothing but a tensor', function()
    local record = { name = 'straight_through', inputs = { 'x' }, forward = function(_, x) return x end,
      backward = function(_, dy) return dy * 3 end }
    local x = tycho.ones({ 2 }):requires_grad_()
    op.new(record)(x * 2):sum():backward()
    assert.same({ 6, 6 }, x.grad:tolist())
    op.new(record)(x):sum():backward()
    assert.same({ 9, 9 }, x.grad:tolist())
    record.forward = function() end
    assert_raises(function() op.new(record)(x) end, 'straight_through: its forward must return a tensor, got nil')
  end)

  it('has its loop compiled', function()
    local path = files.write(folder .. '/loop.lua', [[
      local tycho = require 'tycho'
      local util = require 'jit.util'
      local function loop(y, x, n)
        for i = 0, n - 1 do y[i] = x[i] / (1 + math.abs(x[i])) end
      end
      local line, started = util.funcinfo(loop).linedefined, {}
      jit.attach(function(what, trace, fn)
        if what == 'start' then started[trace] = util.funcinfo(fn).linedefined == line end
        if what == 'stop' and started[trace] then print(util.traceinfo(trace).linktype) end
      end, 'trace')
      local x, y = tycho.ones { 1000 }, tycho.empty { 1000 }
      for _ = 1, 3 do
        local from, n = x:data()
        loop(y:data(), from, n)
      end
    ]])
    assert.equal('loop\n', (shell('./tycho ' .. path)))
  end)

  it('says what is wrong with a record, and with the memory order of a tensor', function()
    assert_raises(function() op.new { inputs = { 'x' } } end, 'op.new: expected a record')
    local record = record_of()
    record.inputs = { 'a', 'b', 'c', 'd', 'e', 'f', 'g' }
    assert_raises(function() op.new(record) end, 'op.new: softsign has 7 inputs; 6 tensors are the most, a list of them (list = true) has no limit')
    local x = tycho.ones({ 2 }):requires_grad_()
    local saving = op.new { inputs = { 'x' }, backward = function() end, forward = function(ctx) ctx:save(x, x, x, x, x) end, name = 'saving' }
    assert_raises(function() saving(x) end, 'saving: ctx:save takes four tensors at most')
    assert_raises(function() tycho.gradcheck(op.find 'mul', {}, { tolerence = 1 }) end, "unknown option 'tolerence'; did you mean 'tolerance'?")
    tycho.gradcheck(function(rows) return rows:index_select { 1 } end, { tycho.ones({ 2, 2 }, 'f64'), tycho.ones({ 2 }) }) -- rows are tensors, too
    assert_raises(function() tycho.gradcheck { inputs = { 'x' }, forward = function() end } end, 'has no sample')
    assert_raises(function() tycho.ones({ 2, 3 }):transpose(0, 1):data() end, 'data: the elements of this (3, 2) tensor', 'x:contiguous()')
    assert_raises(function() op.new(record_of())('text') end, 'softsign: x must be a tensor, got string')
  end)
end)

-- Sums of products over all values of all letters, in plain loops.
local function slow_einsum(inputs, output, lists, sizes)
  local letters = {}
  for c in pairs(sizes) do letters[#letters + 1] = c end
  table.sort(letters)
  local sums, value = {}, {}
  local function visit(k)
    if k > #letters then
      local product, key = 1, {}
      for i, names in ipairs(inputs) do
        local x = lists[i]
        for c in names:gmatch('.') do x = x[value[c]] end
        product = product * x
      end
      for c in output:gmatch('.') do key[#key + 1] = value[c] end
      key = table.concat(key, ',')
      sums[key] = (sums[key] or 0) + product
      return
    end
    for v = 1, sizes[letters[k]] do
      value[letters[k]] = v
      visit(k + 1)
    end
  end
  visit(1)
  return sums
end

describe('einsum', function()
  it('makes a tensor of its own also where it changes nothing', function()
    local x = tycho.ones({ 2, 3 }):requires_grad_()
    assert.is_false(tycho.einsum('ij->ij', x) == x)
    tycho.einsum('ij->ij', x):sum():backward()
    assert.same({ 2, 3 }, x.grad.shape)
  end)

  local sizes = { a = 2, b = 3, c = 4, d = 2, e = 3 }
  it('is a sum over all letters that the result has not', function()
    local g = tycho.generator(4)
    for _, pattern in ipairs { 'ab->ba', 'ab->a', 'ab->', 'ab,bc->ac', 'ab,ab->', 'ab,ab->ab', 'a,b->ab', 'a,b->ba', 'abc,acd->bd', 'dab,dbc->dca',
      'ab,bc,cd->ad', 'abc,c,b->a', 'ae,bd->ab', 'ab,b', 'abc,abd->cbad', 'bb->b', 'bb->', 'bab->ab', 'bbb->b',
      'abba->ab', 'dad,de->ea', 'bcb,cc->c' } do
      local left, right = pattern:match('^(.-)%->(.*)$')
      left, right = left or pattern, right or 'a'
      local inputs, operands, lists, used = {}, {}, {}, {}
      for names in left:gmatch('[^,]+') do
        local shape = {}
        for c in names:gmatch('.') do shape[#shape + 1], used[c] = sizes[c], sizes[c] end
        inputs[#inputs + 1] = names
        operands[#operands + 1] = g:normal_tensor(shape, 'f64')
        lists[#lists + 1] = operands[#operands]:tolist()
      end
      local expected = slow_einsum(inputs, right, lists, used)
      local y, count = tycho.einsum(pattern, unpack(operands)), 1
      assert.equal(#right, y.ndim, pattern)
      for key, sum in pairs(expected) do
        local x = y
        for index in key:gmatch('%d+') do x = x[tonumber(index) - 1] end
        assert(math.abs(x:item() - sum) < 1e-12, pattern)
      end
      for c in right:gmatch('.') do count = count * sizes[c] end
      assert.equal(count, y:numel())
    end
  end)
  it('takes ... for any further dims, which broadcast', function()
    local g = tycho.generator(5)
    local function close(y, expected)
      assert.same(expected.shape, y.shape)
      assert((y - expected):abs():sum():item() < 1e-10)
    end
    local a, b, v = g:normal_tensor({ 2, 3, 4, 5 }, 'f64'), g:normal_tensor({ 2, 1, 5, 6 }, 'f64'), g:normal_tensor({ 5 }, 'f64')
    local product = a:matmul(b:expand { 2, 3, 5, 6 })
    close(tycho.einsum('...ij,...jk->...ik', a, b), product)
    close(tycho.einsum('...ij,...jk', a, b), product)
    close(tycho.einsum('...ij,...jk->ki', a, b), product:sum { 0, 1 }:transpose(0, 1))
    close(tycho.einsum('b...j,j->...b', a, v), (a * v):sum(3):permute { 1, 2, 0 })
    close(tycho.einsum('...,...->...', v, a), a * v)
    close(tycho.einsum('...->', a), a:sum())
  end)
  it('errors print the pattern and the sizes', function()
    local a, b = tycho.ones { 2, 3 }, tycho.ones { 4, 5 }
    assert_raises(function() tycho.einsum('ij,jk->ik', a, b) end, "einsum 'ij,jk->ik' of (2, 3), (4, 5): 'j' is 3 in operand 1 and 4 in operand 2")
    assert_raises(function() tycho.einsum('ijk->i', a) end, "einsum 'ijk->i' of (2, 3): 'ijk' names 3 dims, operand 1 has 2")
    assert_raises(function() tycho.einsum('ij->ik', a) end, "'k' of the result is in no operand")
    assert_raises(function() tycho.einsum('ii->i', a) end, "einsum 'ii->i' of (2, 3): 'i' is 2 in operand 1 and 3 in operand 1")
    assert_raises(function() tycho.einsum('i->ii', a:select(0, 0)) end, "'i' stands twice in the result")
    assert_raises(function() tycho.einsum('i.->i', a) end, "'.' is no letter")
    assert_raises(function() tycho.einsum('...i...->i', a) end, "'...' stands twice in '...i...'")
    assert_raises(function() tycho.einsum('...ijk->i', a) end, "'...ijk' names 3 dims, operand 1 has 2")
    assert_raises(function() tycho.einsum('...,...', a, b) end, "'...[-2]' is 2 in operand 1 and 4 in operand 2")
    assert_raises(function() tycho.einsum('ij,jk->ik', a) end, 'the pattern has 2 operands')
    assert_raises(function() tycho.einsum(a, 'ij') end, 'the pattern comes first')
    assert_raises(function() tycho.einsum('ij,j', a, 3) end, 'operand 2 must be a tensor')
  end)
end)

describe('rearrange', function()
  it('splits, joins and orders dims by name', function()
    local x = tycho.arange(24):reshape { 2, 3, 4 }
    assert.same(x:permute({ 2, 0, 1 }):tolist(), x:rearrange('a b c -> c a b'):tolist())
    assert.same(x:reshape({ 6, 4 }):tolist(), x:rearrange('a b c -> (a b) c'):tolist())
    assert.same({ 24 }, x:rearrange('a b c -> (c b a)').shape)
    -- Element (a, b, c = 2 d + e) goes to row d, column (a e), depth b.
    local y = x:rearrange('a b (d e) -> d (a e) b', { e = 2 })
    assert.same({ 2, 4, 3 }, y.shape)
    for a = 0, 1 do
      for b = 0, 2 do
        for d = 0, 1 do
          for e = 0, 1 do assert.equal(12 * a + 4 * b + 2 * d + e, y[d][2 * a + e][b]:item()) end
        end
      end
    end
    assert.same({ 1, 2, 3, 4 }, x:rearrange('... -> 1 ...').shape)
    assert.same({ 4, 2, 3 }, x:rearrange('... c -> c ...').shape)
    assert.same({ 2, 3, 4 }, x:rearrange('a b c -> 1 a b c'):rearrange('1 a b c -> a b c').shape)
    assert.same({ 2, 3, 4 }, x:rearrange('a b c -> a () b c'):rearrange('a () b c -> a b c').shape)
  end)
  it('errors print the pattern and the sizes', function()
    local x = tycho.ones { 4, 7, 3 }
    assert_raises(function() x:rearrange('b (t p) c -> b t (p c)', { p = 2 }) end,
      "rearrange 'b (t p) c -> b t (p c)' of (4, 7, 3) with p = 2: dim 1 of size 7 is no 't p'")
    assert_raises(function() x:rearrange('b (t p) c -> b t p c') end, "the sizes of 't' and 'p' are not known")
    assert_raises(function() x:rearrange('a b -> b a') end, 'the left side names 2 dims, the tensor has 3')
    assert_raises(function() x:rearrange('a b c -> a b') end, "'c' is on the left alone")
    assert_raises(function() x:rearrange('a b c -> a b c d') end, "'d' is on the right alone")
    assert_raises(function() x:rearrange('a b a -> a b') end, "'a' stands twice")
    assert_raises(function() x:rearrange('a (b c -> a b c') end, 'brackets must be closed')
    assert_raises(function() x:rearrange('a b c') end, "expected 'dims -> dims'")
    assert_raises(function() x:rearrange('a b c -> c b a', { q = 2 }) end, "the pattern has no dim 'q'")
    assert_raises(function() x:rearrange('1 b c -> b c') end, "dim 0 of size 4 is no '1'")
  end)
end)
