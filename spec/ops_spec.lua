-- One loop over all op records and rows of map.def: gradients in double precision, float against double, other memory orders, empty tensors,
-- errors that name the op, and memory that comes back.
local tycho = require 'tycho'
local lib = require 'tycho.lib'
local op = require 'tycho.op'
local gradcheck = require 'tycho.gradcheck'
local failure = require 'spec.failure'

local is_tensor = tycho.is_tensor

local function convert(value, fn)
  if is_tensor(value) then return value.type.real and fn(value) or value end
  if type(value) == 'table' then
    local out = {}
    for k, v in pairs(value) do out[k] = convert(v, fn) end
    return out
  end
  return value
end

local function arguments(record, seed) return { record.sample(tycho.generator(seed, 5)) } end

-- A call with the list's tensors passed one by one where the op takes a list.
local function flat_call(record, fn, args)
  if not record.list then return fn, args end
  local n = #args[1]
  local all = { unpack(args[1]) }
  for i = 2, table.maxn(args) do all[n + i - 1] = args[i] end
  return function(...)
    local list = { unpack({ ... }, 1, n) }
    return fn(list, unpack({ ... }, n + 1))
  end, all
end

local function spaced(x)
  -- The same values in memory with gaps: every second element of the last dim.
  if x.ndim == 0 then return x end
  local shape = x.shape
  shape[#shape + 1] = 2
  return tycho.empty(shape, x.dtype):copy_(x:reshape((function()
    local s = x.shape
    s[#s + 1] = 1
    return s
  end)())):select(-1, 0)
end

local function close(a, b, tolerance)
  a, b = a:to('f64'):contiguous(), b:to('f64'):contiguous()
  local scale = 1e-6
  for i = 0, a:numel() - 1 do scale = math.max(scale, math.abs(b:ptr()[i])) end
  for i = 0, a:numel() - 1 do
    local d = math.abs(a:ptr()[i] - b:ptr()[i]) / scale
    if not (d <= tolerance) then return false, ('element %d: %.9g and %.9g'):format(i, a:ptr()[i], b:ptr()[i]) end
  end
  return a:numel() == b:numel()
end

-- A row as a record: samples keep away from kinks and poles.
local positive = { log = true, sqrt = true, reciprocal = true, pow = true, div = true }
local function row_record(row)
  return {
    differentiable = row.da ~= '0',
    second_is_constant = row.db == '0',
    sample = function(g)
      local function draw(shape)
        local x = g:uniform_tensor(shape, 'f64')
        if positive[row.name] then return x + 0.5 end
        return x * 4 - 2
      end
      if row.arity == 1 then return draw { 3, 4 } end
      return draw { 3, 4 }, draw { 4 }
    end,
  }
end

local records = {}
for _, row in ipairs(lib.rows) do records[row.name] = row_record(row) end
for _, name in ipairs(op.names()) do records[name] = records[name] or op.record(name) end

for name, record in pairs(records) do
  describe('op ' .. name, function()
    if record.skip then
      it('has a reason for having no sample', function() assert.is_string(record.skip) end)
      return
    end

    it('has the gradient of its forward', function()
      if record.differentiable == false then return end
      for seed = 1, 2 do
        local fn, args = flat_call(record, op.find(name), arguments(record, seed))
        if record.second_is_constant then
          local b = args[2]
          fn, args = function(a) return op.find(name)(a, b) end, { args[1] }
        end
        assert(gradcheck(fn, args, { tolerance = 2e-6 }) <= 2e-6)
      end
    end)

    it('gives in float what it gives in double', function()
      local args = arguments(record, 3)
      local wide = op.find(name)(unpack(args, 1, table.maxn(args)))
      local narrow = op.find(name)(unpack(convert(args, function(x) return x:to('f32') end), 1, table.maxn(args)))
      assert.equal('f32', narrow.dtype)
      assert(close(narrow, wide, 2e-5))
    end)

    it('takes tensors with gaps in memory', function()
      if name == 'reshape_heads' then return end
      local args = arguments(record, 4)
      local plain = op.find(name)(unpack(args, 1, table.maxn(args)))
      local gaps = op.find(name)(unpack(convert(args, spaced), 1, table.maxn(args)))
      assert(close(gaps, plain, 1e-12))
    end)

    it('names itself when an argument is no tensor', function()
      if record.compose then return end
      local message = failure(op.find(name), 'text')
      assert.truthy(message:find(name, 1, true))
    end)

    it('returns its memory', function()
      tycho.collect()
      local before = tycho.memory().registered
      tycho.scope(function()
        local fn, args = flat_call(record, op.find(name), arguments(record, 5))
        for i = 1, table.maxn(args) do
          if is_tensor(args[i]) and args[i].type.real then args[i] = args[i]:clone():requires_grad_() end
        end
        local y = fn(unpack(args, 1, table.maxn(args)))
        if y.node then (y * y):sum():backward() end
        for i = 1, table.maxn(args) do
          if is_tensor(args[i]) and args[i].grad then args[i].grad.storage:free() end
        end
      end)
      assert.equal(before, tycho.memory().registered)
    end)
  end)
end

describe('elementwise rows', function()
  it('take empty tensors', function()
    for _, row in ipairs(lib.rows) do
      local x = tycho.empty { 0, 3 }
      local y = row.arity == 1 and op.find(row.name)(x) or op.find(row.name)(x, tycho.ones { 3 })
      assert.same({ 0, 3 }, y.shape)
    end
  end)

  it('say which shapes do not broadcast', function()
    local message = failure(function() return tycho.ones { 2, 3 } + tycho.ones { 4 } end)
    assert.truthy(message:find('add: shapes (2, 3) and (4) do not broadcast', 1, true))
  end)
end)

describe('shape errors name the op and the shapes', function()
  local cases = {
    { 'matmul', function() return tycho.ones({ 2, 3 }):matmul(tycho.ones { 4, 5 }) end, '(2, 3)' },
    { 'linear', function() return tycho.ones({ 2, 3 }):linear(tycho.ones { 4, 5 }) end, '(4, 5)' },
    { 'conv2d', function() return tycho.ones({ 1, 3, 4, 4 }):conv2d(tycho.ones { 2, 5, 3, 3 }) end, '(2, 5, 3, 3)' },
    { 'conv2d', function() return tycho.ones({ 1, 3, 2, 2 }):conv2d(tycho.ones { 2, 3, 5, 5 }, 1, 0) end, '5x5' },
    { 'cat', function() return tycho.cat({ tycho.ones { 2, 3 }, tycho.ones { 2, 4 } }, 0) end, '(2, 4)' },
    { 'layer_norm', function() return tycho.ones({ 2, 3 }):layer_norm(tycho.ones { 4 }, tycho.ones { 4 }) end, '4' },
    { 'cross_entropy', function() return tycho.ones({ 2, 3 }):cross_entropy { 0, 3 } end, '3' },
    { 'pair_cross_entropy', function() return tycho.ones({ 4, 6 }):pair_cross_entropy(0.1) end, '(4, 6)' },
    { 'pair_cross_entropy', function() return tycho.ones({ 3, 3 }):pair_cross_entropy(0.1) end, '(3, 3)' },
    { 'pair_cross_entropy', function() return tycho.ones({ 4, 4 }):pair_cross_entropy(0) end, 'the temperature must be above 0, got 0' },
    { 'mse', function() return tycho.ones({ 2, 1 }):mse(tycho.ones { 2 }) end, 'x is (2, 1) and target (2); expected one shape' },
    { 'stack', function() return tycho.stack({ tycho.ones { 2 }, tycho.ones { 3 } }) end, 'entry 2 is (3), the first is (2)' },
    { 'reshape', function() return tycho.ones({ 2, 3 }):reshape { 4 } end, '(2, 3)' },
    { 'index', function() return tycho.ones({ 2, 3 })[2] end, '0..1' },
  }
  for _, case in ipairs(cases) do
    it(case[1] .. ' ' .. case[3], function()
      local message = failure(case[2])
      assert.truthy(message:find(case[1], 1, true), message)
      assert.truthy(message:find(case[3], 1, true), message)
    end)
  end
end)

describe('Winograd convolution', function()
  it('agrees with the direct one in all three directions', function()
    local g = tycho.generator(9, 9)
    local function both(on, shape, channels)
      tycho.set_exact(not on)
      g.step = 0
      local x = tycho.empty_image(shape):copy_(g:normal_tensor(shape)):requires_grad_()
      local w = g:normal_tensor({ channels, shape[2], 3, 3 }):mul_(0.1):requires_grad_()
      local y = x:conv2d(w, 1, 1)
      y:backward(g:normal_tensor(y.shape))
      return { y, x.grad, w.grad }
    end
    for _, case in ipairs { { { 8, 32, 16, 16 }, 48 }, { { 4, 16, 13, 11 }, 16 }, { { 2, 64, 32, 32 }, 64 } } do
      local direct, fast = both(false, unpack(case)), both(true, unpack(case))
      for i = 1, 3 do assert(close(fast[i], direct[i], 5e-5)) end
    end
  end)
end)
