-- Devices: every op gives on a device, forward and backward, what it gives on the CPU, on its sample and on shapes that cross the kernels' blocks.
-- cuda-host runs the CUDA sources on the CPU, so the kernels are checked on every machine; rows of cuda are skipped where no GPU is.
local tycho = require 'tycho'
local ffi = require 'ffi'
local lib = require 'tycho.lib'
local op = require 'tycho.op'
local device = require 'tycho.device'
local failure = require 'spec.failure'
local files = require 'spec.files'
local on_device = require 'spec.on_device'
local on_each_device = require 'spec.on_each_device'
local shell = require 'spec.shell'

local each, results, assert_close = on_device.each, on_device.results, on_device.assert_close

-- ---- what is run ----

local cases = {}
-- twice [opt]: whether the op's result has two users.
local function case(name, label, sample, tolerance, twice)
  cases[#cases + 1] = { fn = twice and on_device.used_twice(name) or name, label = name .. (label and ', ' .. label or ''), sample = sample,
    tolerance = tolerance or 1e-5 }
end

for _, row in ipairs(lib.rows) do
  case(row.name, nil, function(g)
    local x = g:uniform_tensor({ 3, 50, 17 }) + 0.5
    if row.arity == 1 then return x end
    return x, g:uniform_tensor { 50, 1 } + 0.5
  end)
end
for _, name in ipairs(op.names()) do
  local record = op.record(name)
  if record and record.sample then case(name, 'its sample', record.sample) end
end
local function image(g, shape) return tycho.empty_image(shape):copy_(g:normal_tensor(shape)) end
case('sum', 'all', function(g) return g:normal_tensor { 40000 } end)
case('sum', 'rows', function(g) return g:normal_tensor { 7, 20000 }, 1 end)
case('sum', 'columns', function(g) return g:normal_tensor { 3000, 37 }, 0 end)
case('sum', 'outer and inner', function(g) return g:normal_tensor { 5, 33, 70 }, { 0, 2 } end)
case('sum', 'nothing', function(g) return g:normal_tensor { 0, 3 }, 0 end)
case('max', 'long rows', function(g) return g:normal_tensor { 5, 700 } end)
case('max', 'equal values', function() return tycho.full({ 2, 600 }, 3) end)
case('softmax', 'long rows', function(g) return g:normal_tensor { 5, 700 } end)
case('normalize', 'long rows', function(g) return g:normal_tensor { 5, 700 } end)
case('normalize', 'zeros', function() return tycho.zeros { 3, 40 } end)
case('cross_entropy', 'many rows', function(g)
  local target = {}
  for i = 1, 600 do target[i] = g:integer(300) end
  return g:normal_tensor { 600, 300 }, target
end)
case('pair_cross_entropy', 'many rows', function(g) return g:uniform_tensor { 600, 600 }, 0.1, 0.3 end)
case('pair_cross_entropy', 'no floor', function(g) return g:normal_tensor { 300, 300 } end)
case('index_select', 'repeated rows', function(g)
  local index = {}
  for i = 1, 500 do index[i] = g:integer(9) end
  return g:normal_tensor { 9, 13 }, index
end)
case('index_select', 'rows of another order', function(g) return g:normal_tensor({ 5, 6, 7 }):permute { 0, 2, 1 }, { 4, 0, 4 } end)
case('linear', 'no bias', function(g) return g:normal_tensor { 65, 33 }, g:normal_tensor { 70, 33 } end)
case('matmul', 'transposed factors', function(g)
  return g:normal_tensor({ 2, 3, 9, 5 }):transpose(-1, -2), g:normal_tensor({ 2, 3, 7, 9 }):transpose(-1, -2)
end)
case('matmul', 'gaps', function(g) return g:normal_tensor({ 4, 5, 2 }):select(-1, 0), g:normal_tensor({ 5, 6, 2 }):select(-1, 1) end)
case('batch_norm', 'many rows', function(g)
  return image(g, { 9, 70, 8, 8 }), g:normal_tensor { 70 }, g:normal_tensor { 70 }, image(g, { 9, 70, 8, 8 }),
    { training = true, relu = true, running_mean = tycho.zeros { 70 }, running_var = tycho.ones { 70 } }
end)
-- Packets of channels: a part of a warp's width and several widths, the last incomplete, over several blocks of rows.
for _, shape in ipairs { { 20, 24, 17, 16 }, { 5, 264, 9, 9 }, { 2, 64, 1, 1 } } do
  local channels = { shape[2] }
  case('batch_norm', ('%d channels and a ReLU'):format(shape[2]), function(g)
    return image(g, shape), g:normal_tensor(channels), g:normal_tensor(channels), nil, { training = true, relu = true }
  end)
  local function residual(g)
    return image(g, shape), g:normal_tensor(channels), g:normal_tensor(channels), image(g, shape), { training = true, relu = true }
  end
  case('batch_norm', ('%d channels and a residual'):format(shape[2]), residual)
  case('batch_norm', ('%d channels, used twice'):format(shape[2]), residual, nil, true)
end
case('batch_norm', 'no residual, used twice', function(g)
  return image(g, { 9, 72, 8, 8 }), g:normal_tensor { 72 }, g:normal_tensor { 72 }, nil, { training = true, relu = true }
end, nil, true)
for label, pool in pairs { ["ResNet's"] = { 3, 2, 1 }, ['windows far apart'] = { 2, 3 }, ['large windows'] = { 5, 1, 2 } } do
  for _, channels in ipairs { 24, 19 } do
    case('batch_norm', ('%d channels, pooled, %s'):format(channels, label), function(g)
      return image(g, { 6, channels, 17, 14 }), g:normal_tensor { channels }, g:normal_tensor { channels }, nil,
        { training = true, relu = true, pool = pool }
    end)
  end
end
case('batch_norm', 'eval, pooled', function(g)
  return image(g, { 2, 40, 9, 8 }), g:normal_tensor { 40 }, g:normal_tensor { 40 }, nil,
    { running_mean = g:normal_tensor { 40 }, running_var = g:uniform_tensor { 40 } + 0.5, pool = { 3, 2, 1 } }
end)
case('batch_norm', 'eval', function(g)
  return image(g, { 2, 33, 5, 4 }), g:normal_tensor { 33 }, g:normal_tensor { 33 }, nil,
    { running_mean = g:normal_tensor { 33 }, running_var = g:uniform_tensor { 33 } + 0.5 }
end)
case('batch_norm', 'a mean far from zero', function(g)
  return image(g, { 8, 3, 9, 9 }) + 1000, g:normal_tensor { 3 }, g:normal_tensor { 3 }, nil, { training = true }
end, 1e-3)
case('layer_norm', 'packets', function(g) return g:normal_tensor { 300, 272 }, g:normal_tensor { 272 }, g:normal_tensor { 272 } end)
case('layer_norm', 'many rows', function(g) return g:normal_tensor { 300, 270 }, g:normal_tensor { 270 }, g:normal_tensor { 270 } end)
case('max_pool2d', "ResNet's", function(g) return image(g, { 3, 20, 16, 16 }), 3, 2, 1 end)
local function with_nan(x)
  x:ptr()[x:numel() / 2 + 27] = 0 / 0
  return x
end
case('batch_norm', 'a NaN, pooled', function(g)
  return with_nan(image(g, { 2, 3, 8, 8 })), g:normal_tensor { 3 }, g:normal_tensor { 3 }, nil,
    { running_mean = tycho.zeros { 3 }, running_var = tycho.ones { 3 }, relu = true, pool = { 3, 2, 1 } }
end)
case('max_pool2d', 'a NaN', function(g) return with_nan(image(g, { 2, 3, 8, 8 })), 3, 2, 1 end)
case('max', 'a NaN', function(g) return with_nan(g:normal_tensor { 3, 300 }) end)
for _, name in ipairs { 'relu', 'exp', 'gelu' } do case(name, 'a NaN', function(g) return with_nan(g:normal_tensor { 300 }) end) end
case('maximum', 'a NaN', function(g) return with_nan(g:normal_tensor { 300 }), g:normal_tensor { 300 } end)
case('avg_pool2d', 'many channels', function(g) return image(g, { 3, 300, 4, 4 }) end)
case('conv2d', '1x1', function(g) return image(g, { 2, 24, 8, 8 }), image(g, { 32, 24, 1, 1 }), 2, 0 end)
case('conv2d', '3x3', function(g) return image(g, { 2, 16, 9, 9 }), image(g, { 32, 16, 3, 3 }), 1, 1 end)
local function causal(T)
  local mask = tycho.zeros({ T, T }, 'u8')
  for i = 0, T - 1 do
    for j = 0, i do mask:ptr()[i * T + j] = 1 end
  end
  return mask
end
case('self_attention', 'causal', function(g) return g:normal_tensor { 3, 40, 96 }, 4, { mask = causal(40) } end)

-- ---- devices ----

on_each_device('device', function(name)
  for _, c in ipairs(cases) do
    it('computes what the CPU does: ' .. c.label, function()
      assert_close(results(c.fn, c.sample, 'cpu'), results(c.fn, c.sample, name), c.tolerance, c.label)
    end)
  end

  it('attends to a memory as the CPU does', function()
    for _, T in ipairs { 1, 3 } do
      local g = tycho.generator(8, T)
      local args = { g:normal_tensor { 5, T, 24 }, 2, { mask = causal(T), memory_k = g:normal_tensor { 2, 7, 4 },
        memory_v = g:normal_tensor { 2, 7, 4 } } }
      local function run(where) return (tycho.no_grad(op.find 'self_attention', unpack(each(args, function(x) return x:to(where) end)))):cpu() end
      assert_close({ run 'cpu' }, { run(name) }, 1e-5, 'memory')
    end
  end)

  it('multiplies into any memory order, adding to what is there', function()
    local function into(where, view, beta)
      local g = tycho.generator(4, 4)
      local y, a, b = view(g:normal_tensor({ 3, 8, 8 }):to(where)), g:normal_tensor({ 3, 4, 6 }):to(where), g:normal_tensor({ 3, 6, 5 }):to(where)
      lib.check(y.lib.ty_matmul(y.c, a.c, b.c, beta), y.lib)
      return { y:cpu() }
    end
    local views = {
      function(x) return x:narrow(1, 0, 4):narrow(2, 0, 5) end,
      function(x) return x:narrow(1, 0, 5):narrow(2, 0, 4):transpose(1, 2) end,
      function(x) return x:reshape({ 3, 4, 8, 2 }):select(3, 1):narrow(2, 0, 5) end,
    }
    for _, view in ipairs(views) do
      for _, beta in ipairs { 0, 0.5 } do assert_close(into('cpu', view, beta), into(name, view, beta), 1e-5, 'beta ' .. beta) end
    end
  end)

  it('multiplies batches that lie in any order, also where BLAS cannot be given pointers', function()
    local function heads(x, first, size) return x:narrow(3, first, size):permute { 0, 2, 1, 3 } end
    local function same_for_all(x) return x:select(0, 0):expand { 5, 3, 6, 8 } end
    local views = {
      ['one run'] = function(x) return x:permute({ 0, 2, 1, 3 }):contiguous() end,
      ['heads'] = function(x) return heads(x, 0, 8) end,
      ['heads at odd places'] = function(x) return heads(x, 1, 5) end,
      ['the first sequence for all'] = function(x) return same_for_all(heads(x, 0, 8)) end,
      ['few sequences of many heads'] = function(x) return heads(x, 3, 5):permute { 1, 0, 2, 3 } end,
    }
    for label, view in pairs(views) do
      for _, dtype in ipairs { 'f32', 'f16' } do
        local function product(where)
          local g = tycho.generator(6, 6)
          local function draw() return g:normal_tensor({ 5, 6, 3, 8 }):to('f16'):to(where == 'cpu' and 'f32' or dtype):to(where) end
          local a, b = view(draw()), view(draw()):transpose(2, 3)
          local y = tycho.empty({ a.shape[1], a.shape[2], 6, 6 }, 'f32', where)
          lib.check(y.lib.ty_matmul(y.c, a.c, b.c, 0), y.lib)
          return { y:cpu() }
        end
        assert_close(product 'cpu', product(name), 1e-5, label .. ', ' .. dtype)
      end
    end
  end)

  it('draws the same numbers', function()
    local function draw(where)
      local g = tycho.generator(5, 2 ^ 33)
      g.step = 7
      return { g:uniform_tensor({ 1001 }, 'f32', where):cpu(), g:normal_tensor({ 1001 }, 'f32', where):cpu() }
    end
    local here, there = draw 'cpu', draw(name)
    assert.same(here[1]:tolist(), there[1]:tolist())
    assert_close(here, there, 1e-6, 'normal')
  end)

  it('copies and converts between all dtypes and orders', function()
    local values = tycho.tensor { { 0, 1, 2.5 }, { 200, 7, 100 } }
    for _, from in ipairs { 'f32', 'f64', 'i64', 'i32', 'u8' } do
      for _, to in ipairs { 'f32', 'f64', 'i64', 'i32', 'u8' } do
        local x = values:to(from)
        assert.same(x:to(to):tolist(), x:to(name):to(to):tolist())
        assert.same(x:transpose(0, 1):to(to):contiguous():tolist(), x:to(name):transpose(0, 1):to(to):contiguous():tolist())
        assert.same({ { 7, 7 }, { 7, 7 } }, tycho.full({ 2, 2 }, 7, to, name):tolist())
      end
    end
  end)

  it('copies, converts and adds what comes in packets, and parts of it that do not', function()
    local g = tycho.generator(7, 7)
    local x, row = g:normal_tensor({ 5, 3, 48 }):to 'f16', g:normal_tensor({ 48 }):to 'f16'
    local function views(t)
      return { t, t:narrow(2, 8, 16), t:narrow(2, 4, 24), t:narrow(2, 1, 8), t:transpose(0, 2), t:narrow(2, 8, 8):transpose(0, 1) }
    end
    local here, there = views(x), views(x:to(name))
    local uneven = g:normal_tensor({ 5, 3, 44 }):to 'f16' -- rows that begin between two packets
    here[#here + 1], there[#there + 1] = uneven:narrow(2, 0, 40), uneven:to(name):narrow(2, 0, 40)
    for i, v in ipairs(here) do
      for _, to in ipairs { 'f32', 'f16', 'bf16' } do
        assert.same(v:to(to):contiguous():to('f32'):tolist(), there[i]:to(to):contiguous():to('f32'):tolist())
      end
      local wide = there[i]:to 'f32'
      assert.same((v:to 'f32' + 1):tolist(), (wide + 1):tolist())
      assert.same((v:to 'f32' * v:to 'f32'):tolist(), (wide * there[i]):tolist())
    end
    for _, from in ipairs { 0, 8, 3 } do
      local a = x:narrow(2, from, 40):to 'f32' + row:narrow(0, from, 40):to 'f32'
      local b = x:to(name):narrow(2, from, 40) + row:to(name):narrow(0, from, 40)
      assert.same(a:to('f16'):to('f32'):tolist(), b:to('f32'):tolist())
    end
    local long = g:normal_tensor { 41 }
    local function normalized(where) -- what begins between two packets
      local part = long:to(where):narrow(0, 1, 40):reshape { 5, 8 }
      return part:batch_norm(tycho.ones({ 8 }, 'f32', where), tycho.zeros({ 8 }, 'f32', where), nil, { training = true }):cpu()
    end
    assert_close({ normalized 'cpu' }, { normalized(name) }, 1e-5, 'batch_norm')
    local filled = tycho.empty({ 4, 3, 40 }, 'f32', name)
    filled:copy_(row:narrow(0, 8, 40):to(name))
    for i = 0, 3 do assert.same(row:narrow(0, 8, 40):to('f32'):tolist(), filled:select(0, i):select(0, 2):tolist()) end
  end)

  it('meets numbers with tensors, the same ones again', function()
    local x = tycho.tensor({ 1, -3 }, 'f32', name)
    for _ = 1, 2 do
      assert.same({ 1.5, -2.5 }, (x + 0.5):tolist())
      assert.same({ math.huge, -math.huge }, (x / 0):tolist())
      assert.same({ -math.huge, math.huge }, (x / -0):tolist())
      local nan = (x * (0 / 0)):tolist()
      assert.is_true(nan[1] ~= nan[1] and nan[2] ~= nan[2])
      assert.same({ 1.5, -2.5 }, (x:cpu():to('f64') + 0.5):tolist())
      assert.same({ 1.5, -2.5 }, (x:to('f16') + 0.5):tolist())
    end
  end)

  it('takes a step of Adam and of SGD as the CPU does', function()
    local function train(where, optimizer, options)
      local g = tycho.generator(6, 6)
      local p = g:normal_tensor({ 500, 3 }):to(where):requires_grad_()
      local o = optimizer({ p }, options)
      for _ = 1, 3 do
        o:zero_grad()
        ;(p * p * p):sum():backward()
        o:step()
      end
      return { p:cpu() }
    end
    for _, options in ipairs { {}, { weight_decay = 0.1 }, { weight_decay = 0.1, decoupled = true } } do
      assert_close(train('cpu', tycho.optim.Adam, options), train(name, tycho.optim.Adam, options), 1e-5, 'Adam')
    end
    local options = { momentum = 0.9, weight_decay = 0.1, lr = 1e-3 }
    assert_close(train('cpu', tycho.optim.SGD, options), train(name, tycho.optim.SGD, options), 1e-5, 'SGD')
  end)

  it('normalises images by number', function()
    local g = tycho.generator(2, 2)
    local index = tycho.tensor({ 4, 0, 4 }, 'i64')
    local mean, std = { 0.5, 0.4, 0.3 }, { 0.1, 0.2, 0.3 }
    local image_io = require 'tycho.io.image'
    for _, size in ipairs { { 4, 6 }, { 5, 7 } } do -- pixels by fours, and not
      local bytes = (g:uniform_tensor { 5, size[1], size[2], 3 } * 255):to('u8')
      assert_close({ image_io.normalize(bytes, mean, std, index) },
        { image_io.normalize(bytes:to(name), mean, std, index:to(name)):cpu() }, 1e-6, 'normalize')
      for setting, dtype in pairs { fp16 = 'f16', bf16 = 'bf16' } do
        local there = tycho.autocast(setting, image_io.normalize, bytes:to(name), mean, std, index:to(name))
        assert.equal(dtype, there.dtype)
        assert_close({ image_io.normalize(bytes, mean, std, index):to(dtype):to 'f32' }, { there:cpu():to 'f32' }, dtype == 'f16' and 1e-3 or 1e-2)
      end
    end
  end)

  it('tells of an index out of range when it is waited for', function()
    local x = tycho.ones({ 4, 3 }, 'f32', name)
    local text = failure(function() return x:index_select({ 0, 4 }):tolist() end)
    assert.truthy(text:find('index_select: index 4 at position 1 is out of range 0..3', 1, true), text)
    text = failure(function() return x:cross_entropy({ 0, 1, 5, 2 }):item() end)
    assert.truthy(text:find('cross_entropy: target 5 of row 2 is out of range 0..2', 1, true), text)
    assert.equal(12, x:sum():item())
  end)

  it('refuses tensors of two devices in one sentence', function()
    local a, b = tycho.ones({ 2, 2 }, 'f32', name), tycho.ones { 2, 2 }
    local calls = {
      function() return a + b end, function() return b + a end, function() return a:matmul(b) end, function() return b:linear(a) end,
      function() return a:layer_norm(tycho.ones { 2 }, tycho.zeros { 2 }) end,
      function() return a:index_select(tycho.tensor({ 0 }, 'i64')) end,
      function() return a:cross_entropy(tycho.tensor({ 0, 1 }, 'i64')) end,
      function() return tycho.cat { a, b } end, function() return tycho.stack { b, a } end,
    }
    for i, call in ipairs(calls) do
      local text = failure(call)
      assert.truthy(text:find(' is on %S+, the others are on %S+; move one with :to%('), ('%d: %s'):format(i, text))
    end
  end)

  it('keeps its memory out of reach of the host', function()
    local x = tycho.ones({ 2 }, 'f32', name)
    local text = failure(x.ptr, x)
    assert.truthy(text:find(('ptr: this tensor of shape (2) is on %s; copy it with :cpu() first'):format(name), 1, true), text)
    assert.equal(name, x.device)
    assert.equal('cpu', x:cpu().device)
    assert.equal(x, x:to(name))
  end)

  it('prints its values', function()
    local x = tycho.tensor({ { 1, 2 }, { 3, 4 } }, 'f32', name)
    assert.equal(tostring(x:transpose(0, 1):cpu()), (tostring(x:transpose(0, 1)):gsub(' ' .. name:gsub('%-', '%%-') .. ' ', ' cpu ', 1)))
  end)

  it('counts and returns its memory', function()
    local _ = tycho.ones({}, 'f32', name) * 2 -- the number stays
    tycho.collect()
    local before = tycho.memory(name)
    tycho.scope(function()
      local x = tycho.ones({ 1000, 100 }, 'f32', name)
      assert.equal(before.registered + 4e5, tycho.memory(name).registered)
      return (x * 2):sum():item()
    end)
    assert.equal(before.registered, tycho.memory(name).registered)
    assert.equal(before.live, tycho.memory(name).live)
  end)

  it('takes from the host what is copied, whatever becomes of that, and keeps nothing else', function()
    local y = tycho.zeros({ 4, 6 }, 'f32', name)
    tycho.collect()
    local before = tycho.memory(name).registered
    y:copy_(tycho.full({ 4, 6 }, 2))
    y:narrow(1, 1, 3):copy_(tycho.ones { 4, 3 })
    assert.equal(before, tycho.memory(name).registered)
    assert.equal(36, y:sum():item())
    for _, bytes in ipairs { 100, 130 * 2 ^ 20 } do -- the larger is not staged
      local x = tycho.full({ bytes }, 1, 'u8')
      local sent = x:to(name)
      x:fill_(2)
      assert.equal(1, sent:narrow(0, bytes - 1, 1):cpu():item())
    end
  end)

  it('joins what is freed next to each other, and gives it again', function()
    if os.getenv 'TYCHO_GUARD' then return pending 'under TYCHO_GUARD nothing is next to each other' end
    local library, size = lib.devices[name].float, 1000 * 512
    local function is_next(a, b) return ffi.cast('char *', a) + size == ffi.cast('char *', b) end
    for _, order in ipairs { { -2, -1 }, { -1, -2 } } do
      local start, list, n = tycho.memory(name).live, {}, 0
      repeat -- until three lie next to each other
        n = n + 1
        list[n] = library.ty_alloc(size)
      until n > 2 and is_next(list[n - 2], list[n - 1]) and is_next(list[n - 1], list[n])
      local before = tycho.memory(name)
      for _, i in ipairs(order) do library.ty_free(list[n + i], size) end
      local both = library.ty_alloc(2 * size)
      assert.equal(list[n - 2], both)
      assert.equal(before.live, tycho.memory(name).live)
      assert.equal(before.cached, tycho.memory(name).cached)
      library.ty_free(both, 2 * size)
      for i, block in ipairs(list) do
        if i < n - 2 or i == n then library.ty_free(block, size) end
      end
      assert.equal(start, tycho.memory(name).live)
    end
  end)

  it('says what it is', function() assert.truthy(#ffi.string(lib.devices[name].float.ty_device_text()) > 0) end)
end)

describe('a device that cannot be used', function()
  local function without(environment)
    return (shell(('env %s ./tycho -e "print(tycho.device.problem \\"cuda\\")"'):format(environment)))
  end
  local build = files.folder()
  it('says that it was not built', function()
    os.execute(('cp %s %s/'):format(lib.path_of 'libtycho-plain', build))
    assert.equal('libtycho_cuda.so was not built: run make cuda on a machine with nvcc\n', without('TYCHO_CPU=plain TYCHO_BUILD=' .. build))
  end)

  it('is named with what to do', function()
    local message = failure(tycho.zeros, { 1 }, 'f32', 'tpu')
    assert.truthy(message:find("there is no device 'tpu'; expected cpu or cuda", 1, true), message)
    local problem = device.problem 'cuda'
    if not problem then return end
    message = failure(tycho.zeros, { 1 }, 'f32', 'cuda')
    assert.truthy(message:find('device cuda: ' .. problem, 1, true), message)
    assert.is_nil(problem:find '\n')
    assert.same({ 'cpu', problem }, { device.choose 'auto' })
    assert.equal('device=cuda: ' .. problem, failure(device.choose, 'cuda'))
  end)
end)
