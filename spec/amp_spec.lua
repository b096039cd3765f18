-- 16-bit floats: conversions, every op that computes with them against float32 on the same values, and autocast's table of dtypes.
local tycho = require 'tycho'
local device = require 'tycho.device'
local lib = require 'tycho.lib'
local op = require 'tycho.op'
local failure = require 'spec.failure'
local files = require 'spec.files'
local on_device = require 'spec.on_device'
local on_each_device = require 'spec.on_each_device'

local folder = files.folder()
local TOLERANCE = { f16 = 2e-3, bf16 = 1.6e-2 } -- of the largest value: a few roundings

-- x rounded to a float of so many fraction bits, the smallest normal exponent and the largest finite number: the definition, by arithmetic in double.
local function rounded(x, bits, least, largest)
  if x ~= x or x == 0 or math.abs(x) == math.huge then return x end
  local _, exponent = math.frexp(x)
  local unit = 2 ^ (math.max(exponent - 1, least) - bits)
  local n = x / unit
  local below = math.floor(n)
  local rest = n - below
  local nearest = (rest > 0.5 or rest == 0.5 and below % 2 == 1) and below + 1 or below
  local y = nearest * unit
  return math.abs(y) > largest and (y > 0 and math.huge or -math.huge) or y
end
local formats = { f16 = { 10, -14, 65504 }, bf16 = { 7, -126, (2 - 2 ^ -7) * 2 ^ 127 } }

-- ---- what is run: samples of more than one dim are rounded, so that both sides start from the same numbers ----

local cases = {}
-- twice [opt]: whether the op's result has two users.
local function case(name, sample, twice)
  cases[#cases + 1] = { fn = twice and on_device.used_twice(name) or name, sample = sample, label = name .. (twice and ', used twice' or '') }
end
local function image(g, shape) return tycho.empty_image(shape):copy_(g:normal_tensor(shape)) end
for _, row in ipairs(lib.rows) do
  if not (row.name == 'eq' or row.name == 'ne') then
    case(row.name, function(g)
      local x = g:uniform_tensor({ 3, 50, 17 }) + 0.5
      if row.arity == 1 then return x end
      return x, g:uniform_tensor { 50, 1 } + 0.5
    end)
  end
end
for _, name in ipairs { 'softmax', 'layer_norm', 'normalize', 'cross_entropy', 'pair_cross_entropy', 'attention', 'self_attention',
  'avg_pool2d', 'max_pool2d', 'sum', 'mse', 'index_select', 'cat', 'narrow', 'transpose', 'reshape', 'select', 'permute', 'clone', 'stack' } do
  case(name, op.record(name).sample)
end
case('sum', function(g) return g:uniform_tensor { 300, 37 }, 0 end)
case('matmul', function(g) return g:normal_tensor({ 2, 3, 9, 5 }):transpose(-1, -2), g:normal_tensor({ 2, 3, 7, 9 }):transpose(-1, -2) end)
case('matmul', function(g) return g:normal_tensor({ 4, 5, 2 }):select(-1, 0), g:normal_tensor({ 5, 6, 2 }):select(-1, 1) end)
case('linear', function(g) return g:normal_tensor { 65, 33 }, g:normal_tensor { 70, 33 }, g:normal_tensor { 70 } end)
case('conv2d', function(g) return image(g, { 2, 16, 9, 9 }), image(g, { 32, 16, 3, 3 }), 2, 1 end)
case('batch_norm', function(g)
  return image(g, { 9, 70, 8, 8 }), g:normal_tensor { 70 }, g:normal_tensor { 70 }, image(g, { 9, 70, 8, 8 }),
    { training = true, relu = true, running_mean = tycho.zeros { 70 }, running_var = tycho.ones { 70 } }
end)
case('batch_norm', function(g)
  return image(g, { 20, 72, 9, 8 }), g:normal_tensor { 72 }, g:normal_tensor { 72 }, image(g, { 20, 72, 9, 8 }), { training = true, relu = true }
end)
case('batch_norm', function(g)
  return image(g, { 9, 264, 9, 8 }), g:normal_tensor { 264 }, g:normal_tensor { 264 }, nil, { training = true, relu = true }
end)
case('batch_norm', function(g)
  return image(g, { 9, 72, 9, 8 }), g:normal_tensor { 72 }, g:normal_tensor { 72 }, nil, { training = true, relu = true, pool = { 3, 2, 1 } }
end)
for _, shape in ipairs { { 20, 72, 9, 8 }, { 9, 70, 8, 8 } } do
  case('batch_norm', function(g)
    return image(g, shape), g:normal_tensor { shape[2] }, g:normal_tensor { shape[2] }, image(g, shape), { training = true, relu = true }
  end, true)
end
case('batch_norm', function(g)
  return image(g, { 2, 33, 5, 4 }), g:normal_tensor { 33 }, g:normal_tensor { 33 }, nil,
    { running_mean = g:normal_tensor { 33 }, running_var = g:uniform_tensor { 33 } + 0.5 }
end)

describe('16-bit floats on the CPU', function()
  local special = { 0, 1, -1, 1 / 3, 2049, 2051, 65504, 65519.9, 65520, 70000, -1e30, 1e38, 2 ^ -14,
    2 ^ -15 + 2 ^ -24, 2 ^ -24, 2 ^ -25,
    1.0001 * 2 ^ -25, 3 * 2 ^ -26, 1 + 2 ^ -8, 1 + 3 * 2 ^ -8, 1 + 2 ^ -11, 1 + 3 * 2 ^ -11, 2 ^ -126, 2 ^ -133, 3.3895e38, -3.4e38,
    math.huge, -math.huge }

  it('are rounded to the nearest, ties to even', function()
    for dtype, format in pairs(formats) do
      local values = tycho.tensor(special):tolist() -- as floats
      for i = 1, 3000 do values[#values + 1] = tycho.tensor((i % 2 * 2 - 1) * (1 + i / 3001) * 2 ^ (i % 60 - 30)):item() end
      local got = tycho.tensor(values):to(dtype):to('f64'):tolist()
      for i, x in ipairs(values) do assert.equal(rounded(x, unpack(format)), got[i], ('%s of %.9g'):format(dtype, x)) end
      local nan = tycho.tensor(0 / 0):to(dtype)
      assert.is_true(nan:item() ~= nan:item())
      assert.is_true(nan:to('f32'):item() ~= nan:to('f32'):item())
    end
  end)

  it('come back from float32 bit for bit, all 65536 of them', function()
    for _, dtype in ipairs { 'f16', 'bf16' } do
      local x = tycho.empty({ 65536 }, dtype)
      for i = 0, 65535 do x:ptr()[i] = i end
      local back, wide, read = x:to('f32'):to(dtype), x:to('f64'), x.type.read
      local p, q = x:ptr(), back:ptr()
      for i = 0, 65535 do
        local v, again, w = read(p, i), read(q, i), wide.type.read(wide:ptr(), i)
        local is_right = v == w and p[i] == q[i] or v ~= v and w ~= w and again ~= again
        if not is_right then error(('%s %d is %g, %g in double, and comes back as %d'):format(dtype, i, v, w, q[i])) end
      end
    end
  end)

  it('are made, read and printed like others', function()
    local x = tycho.tensor({ { 1, 2.5 }, { -3, 1e-7 } }, 'f16')
    assert.same({ { 1, 2.5 }, { -3, 2 * 2 ^ -24 } }, x:tolist())
    assert.equal('f16', x.dtype)
    assert.truthy(tostring(x):find('f16 cpu', 1, true))
    assert.same({ 0, 1, 2 }, tycho.arange(3, 'bf16'):tolist())
    assert.same({ 7, 7 }, tycho.full({ 2 }, 7, 'bf16'):tolist())
    assert.same({ 200, 3 }, tycho.tensor({ 200, 3 }, 'u8'):to('f16'):to('i64'):tolist())
  end)

  it('are not computed with, which one sentence says', function()
    local message = failure(function() return tycho.ones({ 2, 3 }, 'f16') + 1 end)
    assert.truthy(message:find("add: the output (2, 3) is float16, with which the CPU does not compute; convert it with :to('f32')", 1, true),
      message)
    assert.equal('f32', tycho.ones({ 2, 3 }, 'f16'):softmax().dtype)
  end)

  it('are written to files', function()
    local path = folder .. '/x'
    for dtype, values in pairs { f16 = { 1, -2.5, 6e-8 }, bf16 = { 1, -2.5, 1e38 } } do
      local x = tycho.tensor(values, dtype)
      tycho.io.safetensors.save(path, { x = x })
      assert.equal(dtype, require('tycho.io.elements').dtype_in_file(tycho.io.safetensors.load(path):get 'x'))
      assert.same(x:tolist(), tycho.io.safetensors.load(path):get('x'):tolist())
      tycho.io.pt.save(path, tycho.io.pt.dict { { 'x', x } })
      assert.same(x:tolist(), tycho.io.pt.load(path):get('x'):tolist())
    end
    for _, dtype in ipairs { 'f16', 'bf16' } do
      tycho.io.npy.save(path, tycho.tensor({ 1, -2.5 }, dtype))
      assert.same({ 1, -2.5 }, tycho.io.npy.load(path):tolist())
    end
  end)
end)

on_each_device('16-bit floats on', function(name)
  for _, dtype in ipairs { 'f16', 'bf16' } do
    for i, c in ipairs(cases) do
      it(('compute as float32 does on the same values: %s, %s, %d'):format(dtype, c.label, i), function()
        local function results(where) return on_device.results(c.fn, c.sample, where, dtype) end
        on_device.assert_close(results 'cpu', results(name), TOLERANCE[dtype], c.label)
      end)
    end
  end

  it('attend to a memory as float32 does, which may be of another type', function()
    local g = tycho.generator(8, 8)
    local function draw(shape) return g:normal_tensor(shape):to('f16'):to('f32') end
    local qkv, k, v = draw { 5, 3, 24 }, draw { 2, 7, 4 }, draw { 2, 7, 4 }
    local function run(where, dtype)
      local options = { memory_k = k:to(where), memory_v = v:to(where) }
      return { tycho.no_grad(function() return (qkv:to(where):to(dtype):self_attention(2, options)) end):to('f32'):cpu() }
    end
    on_device.assert_close(run('cpu', 'f32'), run(name, 'f16'), TOLERANCE.f16, 'memory')
  end)

  it('convert as on the CPU', function()
    for _, from in ipairs { 'f16', 'bf16' } do
      local bits = tycho.empty({ 65536 }, from)
      for i = 0, 65535 do bits:ptr()[i] = i end
      for _, to in ipairs { 'f16', 'bf16' } do
        local here, there = bits:to('f32'):to(to), bits:to(name):to('f32'):to(to):cpu()
        local p, q, read = here:ptr(), there:ptr(), here.type.read
        for i = 0, 65535 do
          local a, b = read(p, i), read(q, i)
          if not (a == b or a ~= a and b ~= b) then error(('%s %d becomes %g and %g'):format(from, i, a, b)) end
        end
      end
    end
    for _, to in ipairs { 'f32', 'f64', 'i64', 'i32', 'u8', 'f16', 'bf16' } do
      assert.same({ { 7, 7 }, { 7, 7 } }, tycho.full({ 2, 2 }, 7, to, name):tolist())
      for _, from in ipairs { 'f32', 'f64', 'i64', 'i32', 'u8', 'f16', 'bf16' } do
        local x = tycho.tensor { { 0, 1, 2.5 }, { 200, 7, 100 } }:to(from)
        assert.same(x:transpose(0, 1):to(to):contiguous():tolist(), x:to(name):transpose(0, 1):to(to):contiguous():tolist())
      end
    end
  end)

  it('meet float32 in elementwise ops, whose result is float32, and each gradient has its own dtype', function()
    local a = tycho.tensor({ 1, 2, 3 }, 'f16', name):requires_grad_()
    local b = tycho.tensor({ 0.1, 0.2, 0.3 }, 'f32', name):requires_grad_()
    local y = a * b
    assert.equal('f32', y.dtype)
    y:sum():backward()
    assert.equal('f16', a.grad.dtype)
    assert.equal('f32', b.grad.dtype)
    assert.same({ 1, 2, 3 }, b.grad:tolist())
    for i, value in ipairs { 0.1, 0.2, 0.3 } do assert.equal(rounded(value, unpack(formats.f16)), a.grad:tolist()[i]) end
    assert.equal('f32', (tycho.ones({ 2 }, 'f16', name) + tycho.ones({ 2 }, 'bf16', name)).dtype)
  end)

  it('meet numbers as they are, which 16 bit may not hold', function()
    local half = formats.f16
    local function x() return tycho.full({ 2 }, 100, 'f16', name):requires_grad_() end
    assert.same({ 'f16', rounded(3e-6, unpack(half)) }, { (x() * 3e-8).dtype, (3e-8 * x())[0]:item() })
    assert.equal(rounded(1e-3, unpack(half)), (x() / 1e5)[0]:item())
    assert.equal(rounded(3e-6, unpack(half)), tycho.full({ 2 }, 100, 'f16', name):mul_(3e-8)[0]:item())
    local a = x()
    tycho.sum(a / 1e5):backward()
    assert.same({ rounded(1e-5, unpack(half)), rounded(1e-5, unpack(half)) }, a.grad:tolist())
    assert.near(1e5, (1 / tycho.full({ 1 }, 1e-5, 'f16', name)):item(), 500)
  end)

  it('sum in float32', function()
    local x = tycho.ones({ 5000 }, 'f16', name)
    assert.equal(5000, x:sum():item()) -- in float16 it would end at 2048
    local y = tycho.ones({ 1, 5000 }, 'f16', name):matmul(tycho.ones({ 5000, 1 }, 'f16', name))
    assert.equal(5000, y:item())
    local big = tycho.full({ 4, 4 }, 300, 'f16', name)
    assert.equal(math.huge, big:matmul(big)[0][0]:item()) -- 4 * 90000
  end)

  it('refuse products of two types', function()
    local ok, message = pcall(function()
      return tycho.ones({ 1, 2, 3, 3 }, 'f16', name):conv2d(tycho.ones({ 1, 2, 1, 1 }, 'f32', name))
    end)
    assert.is_false(ok)
    assert.truthy(message:find('w must be float16 as the others are, got float32 (1, 2, 1, 1)', 1, true), message)
  end)

  describe('under autocast', function()
    local g = tycho.generator(1, 2)
    local function draw(shape) return g:normal_tensor(shape, 'f32', name) end
    local short = { fp16 = 'f16', bf16 = 'bf16' }

    -- PyTorch's table: the dtype that an op gives from float32 and from 16 bit; 'low': 16 bit.
    local table_of = {
      { 'conv2d', 'low', 'low', { 1, 2, 4, 4 }, { 3, 2, 3, 3 } }, { 'linear', 'low', 'low', { 2, 3 }, { 4, 3 } },
      { 'matmul', 'low', 'low', { 2, 3 }, { 3, 4 } }, { 'self_attention', 'low', 'low', { 1, 3, 12 }, 2 },
      { 'softmax', 'f32', 'f32', { 2, 3 } }, { 'normalize', 'f32', 'f32', { 2, 3 } }, { 'exp', 'f32', 'f32', { 2 } },
      { 'log', 'f32', 'f32', { 2 } },
      { 'square', 'f32', 'f32', { 2 } }, { 'reciprocal', 'f32', 'f32', { 2 } }, { 'pow', 'f32', 'f32', { 2 }, { 2 } },
      { 'sum', 'f32', 'f32', { 2, 3 } }, { 'mse', 'f32', 'f32', { 2 }, { 2 } }, { 'cosine_similarity', 'f32', 'f32', { 2, 3 }, { 2, 3 } },
      { 'relu', 'f32', 'low', { 2, 3 } }, { 'gelu', 'f32', 'low', { 2, 3 } }, { 'add', 'f32', 'low', { 2 }, { 2 } },
      { 'mul', 'f32', 'low', { 2 }, { 2 } }, { 'mul', 'f32', 'low', { 2 }, 3 },
      { 'div', 'f32', 'low', { 2 }, 3 }, { 'div', 'f32', 'f32', 3, { 2 } },
      { 'max_pool2d', 'f32', 'low', { 1, 2, 4, 4 }, 3, 2, 1 }, { 'avg_pool2d', 'f32', 'low', { 1, 2, 4, 4 } },
      { 'transpose', 'f32', 'low', { 2, 3 }, 0, 1 },
    }

    it("ops compute in PyTorch's dtypes", function()
      for setting, dtype in pairs(short) do
        for _, row in ipairs(table_of) do
          for column, from in ipairs { 'f32', dtype } do
            local args = {}
            for i = 4, #row do args[i - 3] = type(row[i]) == 'table' and draw(row[i]):to(from) or row[i] end
            local wanted = row[1 + column] == 'low' and dtype or 'f32'
            local y = tycho.autocast(setting, function() return (op.find(row[1])(unpack(args))) end)
            assert.equal(wanted, y.dtype, ('%s of %s under %s'):format(row[1], from, setting))
          end
        end
        local x, w = draw { 2, 3 }, draw { 3 }
        assert.equal('f32', tycho.autocast(setting, function() return x:to(dtype):layer_norm(w, w) end).dtype)
        assert.equal('f32', tycho.autocast(setting, function() return x:to(dtype):cross_entropy { 0, 1 } end).dtype)
        local b = tycho.autocast(setting, function() return x:to(dtype):batch_norm(w, w, nil, { training = true }) end)
        assert.equal(dtype, b.dtype)
        assert.equal('f32', tycho.cat({ x, x:to(dtype) }, 1).dtype)
      end
    end)

    it('gradients of weights and biases are float32 sums that float16 could not hold', function()
      local w, b = tycho.ones({ 1, 8 }, 'f32', name):requires_grad_(), tycho.ones({ 1 }, 'f32', name):requires_grad_()
      local x = tycho.full({ 1000, 8 }, 300.5, 'f32', name)
      tycho.autocast('fp16', function() return x:linear(w, b) end):cast('f32'):backward(tycho.ones({ 1000, 1 }, 'f32', name))
      assert.same({ { 300500, 300500, 300500, 300500, 300500, 300500, 300500, 300500 } }, w.grad:tolist())
      assert.same({ 1000 }, b.grad:tolist())
    end)

    it('gradients of float32 parameters are those of the products in 16 bit, in float32', function()
      local x, w, b = draw { 5, 7 }, draw({ 4, 7 }):requires_grad_(), draw({ 4 }):requires_grad_()
      local y = tycho.autocast('fp16', tycho.linear, x, w, b)
      y:sum():backward()
      assert.equal('f32', w.grad.dtype)
      local wanted = {}
      for k = 0, 6 do
        local total = 0
        for i = 0, 4 do total = total + rounded(x[i][k]:item(), unpack(formats.f16)) end
        wanted[k + 1] = rounded(total, unpack(formats.f16))
      end
      for n = 1, 4 do
        for k = 1, 7 do assert.near(wanted[k], w.grad:tolist()[n][k], 2 ^ -9 * math.abs(wanted[k]) + 1e-4) end
      end
      assert.same({ 5, 5, 5, 5 }, b.grad:tolist())
    end)

    it('ends with the function, also when that fails, and nests', function()
      local x = draw { 2, 2 }
      assert.is_false(pcall(tycho.autocast, 'fp16', error, 'no'))
      assert.equal('f32', x:matmul(x).dtype)
      local inner, outer = tycho.autocast('fp16', function()
        return tycho.autocast('off', function() return x:matmul(x).dtype end), x:matmul(x).dtype
      end)
      assert.same({ 'f32', 'f16' }, { inner, outer })
      local message = failure(tycho.autocast, 'fp8', function() end)
      assert.truthy(message:find("autocast: expected 'fp16', 'bf16' or 'off', got 'fp8'", 1, true), message)
    end)

    it('leaves the contrastive loss in float32', function()
      local p = draw { 6, 5 }
      local function loss(setting) return tycho.autocast(setting, tycho.loss.nt_xent, p, 0.1):item() end
      assert.equal(loss 'off', loss 'fp16')
    end)

    it('leaves other dtypes alone', function()
      local x = tycho.ones({ 2, 2 }, 'f64')
      assert.equal('f64', tycho.autocast('fp16', tycho.matmul, x, x).dtype)
    end)

    it("an op of one's own says what it wants", function()
      local function record(autocast)
        return op.new { name = 'mine', inputs = { 'x' }, autocast = autocast, forward = function(_, x) return x:clone() end }
      end
      local x = draw { 2 }
      assert.equal('f16', tycho.autocast('fp16', record 'low', x).dtype)
      assert.equal('f32', tycho.autocast('fp16', record 'full', x:to 'f16').dtype)
      assert.equal('f32', tycho.autocast('fp16', record(nil), x).dtype)
    end)
  end)

  it('TF32 rounds the factors of float32 products and nothing else, and is off at first', function()
    local library = device.open(name).float
    local a, b = tycho.tensor({ { 1 + 2 ^ -12 } }, 'f32', name), tycho.tensor({ { 3 } }, 'f32', name)
    assert.equal(3 * (1 + 2 ^ -12), a:matmul(b):item())
    library.ty_set_tf32(1)
    local product, sum = a:matmul(b):item(), (a + b):item()
    library.ty_set_tf32(0)
    if name == 'cuda-host' then assert.equal(3, product) end
    assert.near(3, product, 2e-3)
    assert.equal(4 + 2 ^ -12, sum)
  end)
end)
