-- Kernels written in Lua scripts: on the CPU from C and Lua, on devices from the CUDA text itself, by NVRTC also for GPUs that are not here.
local tycho = require 'tycho'
local device = require 'tycho.device'
local op = require 'tycho.op'
local failure = require 'spec.failure'
local files = require 'spec.files'
local on_each_device = require 'spec.on_each_device'
local says = require 'spec.says'
local setenv = require 'spec.setenv'
local shell = require 'spec.shell'

local function assert_raises(fn, ...)
  local message = failure(fn)
  says(message, ...)
  return message
end

local function assert_near(expected, got, tolerance)
  assert.same(expected.shape, got.shape)
  local a, b = expected:cpu():to('f64'):contiguous(), got:cpu():to('f64'):contiguous()
  for i = 0, a:numel() - 1 do
    assert(math.abs(a:ptr()[i] - b:ptr()[i]) <= tolerance, ('element %d: %.9g and %.9g'):format(i, a:ptr()[i], b:ptr()[i]))
  end
end

local folder = files.folder()
local cache = setenv('TYCHO_CACHE', folder .. '/own')
teardown(function() setenv('TYCHO_CACHE', cache) end)

-- What a process prints that runs code with an environment and a cache of its own.
local function process(code, environment)
  local path = files.write(folder .. '/script.lua', code)
  return (shell(('env TYCHO_CACHE=%s/cache %s ./tycho %s'):format(folder, environment or '', path)))
end

local function soft_record()
  return { name = 'soft_ratio', inputs = { 'x', 'w' }, numbers = { 'slope' }, y = 'w * x / (slope + fabs(x))',
    dx = 'dy * w * slope / ((slope + fabs(x)) * (slope + fabs(x)))', dw = 'dy * x / (slope + fabs(x))',
    sample = function(g) return g:normal_tensor({ 3, 5 }, 'f64'), g:normal_tensor({ 3, 5 }, 'f64'), 0.7 end }
end

-- Softmax over the rows of x in all three languages; a block for each row.
local function rows_record()
  local function shape_of_grid(v) return v.y:numel() / v.width end
  return {
    cuda = [[
      __global__ void row_softmax(real *y, const real *x, int width, int64_t n) {
        const real *row = x + (int64_t)blockIdx.x * width;
        real *out = y + (int64_t)blockIdx.x * width, sum = 0;
        for (int j = threadIdx.x; j < width; j += blockDim.x) sum += out[j] = exp(row[j]);
        sum = block_sum(sum);
        for (int j = threadIdx.x; j < width; j += blockDim.x) out[j] /= sum;
      }]],
    c = [[
      static real power(real v) { return exp(v); }
      void row_softmax(real *y, const real *x, int width, int64_t n) {
        for (int64_t first = 0; first < n; first += width) {
          real sum = 0;
          for (int j = 0; j < width; j++) sum += y[first + j] = power(x[first + j]);
          for (int j = 0; j < width; j++) y[first + j] /= sum;
        }
      }]],
    grid = shape_of_grid, block = 64,
    backward = {
      cuda = [[
        // dx = y (dy - sum of y dy); __global__ void not_this_one(int x)
        __global__ void __launch_bounds__(64) row_softmax_back(real *dx, const real *dy, const real *y, int width, int64_t n) {
          int64_t first = (int64_t)blockIdx.x * width;
          real dot = 0;
          for (int j = threadIdx.x; j < width; j += blockDim.x) dot += y[first + j] * dy[first + j];
          dot = block_sum(dot);
          for (int j = threadIdx.x; j < width; j += blockDim.x) dx[first + j] = y[first + j] * (dy[first + j] - dot);
        }]],
      lua = function(dx, dy, y, width, n)
        for first = 0, n - 1, width do
          local dot = 0
          for j = first, first + width - 1 do dot = dot + y[j] * dy[j] end
          for j = first, first + width - 1 do dx[j] = y[j] * (dy[j] - dot) end
        end
      end,
      grid = function(v) return v.y:numel() / v.width end, block = 64,
    },
    sample = function(g) return g:normal_tensor({ 3, 5 }, 'f64'), 5 end,
  }
end

-- How often each number below bins is among those that are kept.
local function histogram_record()
  return {
    cuda = [[
      __global__ void histogram(float *y, int64_t *largest, const int32_t *x, const uint8_t *keep, int bins, int64_t n) {
        int64_t i = thread_index();
        if (i >= bins) return;
        if (i == 0) *largest = bins - 1;
        for (int64_t j = 0; j < 6; j++) if (keep[j] && x[j] == i) atomicAdd(y + i, 1.0f);
      }]],
    c = [=[
      void histogram(float *y, int64_t *largest, const int32_t *x, const uint8_t *keep, int bins, int64_t n) {
        for (int64_t j = 0; j < 6; j++) if (keep[j]) y[x[j]] += 1;
        *largest = bins - 1;
      }]=],
    shape = function(v) return { v.bins }, { 1 } end, zeroed = { 'y' },
  }
end

-- Loss and gradients of sum(weights * fn(x...)) on a device.
local function gradients(fn, where, weights, inputs, ...)
  local leaves = {}
  for i, x in ipairs(inputs) do leaves[i] = x:clone():to(where):requires_grad_() end
  local arguments = { unpack(leaves) }
  for i = 1, select('#', ...) do arguments[#leaves + i] = (select(i, ...)) end
  local y = fn(unpack(arguments))
  y:backward(weights:to(where))
  local out = { y:cpu() }
  for i, x in ipairs(leaves) do out[i + 1] = x.grad:cpu() end
  return out
end

describe('an elementwise kernel', function()
  it('computes what its expression says, and its gradient is right', function()
    local soft = tycho.kernel(soft_record())
    for _, dtype in ipairs { 'f32', 'f64' } do
      assert.same({ -0.5, 0, 1.5 }, (soft(tycho.tensor({ -1, 0, 3 }, dtype), tycho.tensor({ 1, 1, 2 }, dtype), 1):tolist()))
    end
    assert(tycho.gradcheck(soft) < 1e-7)
    local wrong = soft_record()
    wrong.dw = 'dy * x'
    assert_raises(function() tycho.gradcheck(tycho.kernel(wrong)) end, 'gradcheck: input 2')
  end)

  it('keeps the memory order of images', function()
    local soft = tycho.kernel(soft_record())
    local g = tycho.generator(3)
    local shape = { 2, 3, 4, 5 }
    local x, w = tycho.empty_image(shape):copy_(g:normal_tensor(shape)), g:normal_tensor(shape)
    local y = soft(x, w, 1)
    assert.is_true(y:is_image())
    assert_near(w * x / (x:abs() + 1), y, 1e-6)
    assert.is_false(soft(w, x, 1):is_image())
    local out = gradients(soft, 'cpu', g:normal_tensor(shape), { x, w }, 1)
    local plain = gradients(function(a, b) return b * a / (a:abs() + 1) end, 'cpu', (function()
      local again = tycho.generator(3)
      again:normal_tensor(shape)
      again:normal_tensor(shape)
      return again:normal_tensor(shape)
    end)(), { x, w })
    for i = 1, 3 do assert_near(plain[i], out[i], 1e-5) end
  end)

  it('takes empty tensors and refuses unequal shapes', function()
    local soft = tycho.kernel(soft_record())
    assert.same({ 0, 3 }, soft(tycho.empty { 0, 3 }, tycho.empty { 0, 3 }, 1).shape)
    assert_raises(function() soft(tycho.ones { 2, 3 }, tycho.ones { 3 }, 1) end, 'soft_ratio: x has shape (2, 3) and w has shape (3)', ':expand')
  end)
end)

describe('a kernel over rows', function()
  it('computes in C and in Lua what the op does, and its gradient is right', function()
    local softmax = tycho.kernel(rows_record())
    local x = tycho.generator(1):normal_tensor { 7, 13 }
    assert_near(x:softmax(), softmax(x, 13), 1e-6)
    assert(tycho.gradcheck(softmax) < 1e-7)
    -- Memory with gaps is laid out first.
    assert_near(x:transpose(0, 1):softmax(), softmax(x:transpose(0, 1), 7), 1e-6)
  end)

  it('compiles for GPUs that are not here', function()
    if not device.nvidia 'libnvrtc.so.13' then return pending 'NVRTC is not installed' end
    for _, architecture in ipairs { 80, 86, 90 } do
      tycho.kernel(rows_record()):check(architecture)
      tycho.kernel(soft_record()):check(architecture)
    end
    assert_raises(function() tycho.kernel(rows_record()):check(20) end, 'kernel row_softmax: this NVRTC compiles for sm_', 'not for sm_20')
  end)
end)

describe('a kernel', function()
  it('has sums that start at zero, several results, whole numbers, and a rule in Lua', function()
    local often, largest = tycho.kernel(histogram_record())(tycho.tensor({ 0, 2, 2, 1, 2, 0 }, 'i32'), tycho.tensor({ 1, 1, 1, 1, 1, 0 }, 'u8'), 4)
    assert.same({ 1, 1, 3, 0 }, often:tolist())
    assert.same({ 3 }, largest:tolist())
    assert.equal('i64', largest.dtype)
    local times_n = tycho.kernel {
      signature = 'void times_n(real *y, const real *x, int64_t n)',
      lua = function(y, x, n) for i = 0, n - 1 do y[i] = n * x[i] end end,
      save = { 'x', 'y' },
      backward = function(ctx, dy)
        local x, y = ctx:saved()
        return dy * y / x
      end,
      sample = function(g) return g:uniform_tensor({ 4 }, 'f64') + 1 end,
    }
    assert.same({ 2, 4 }, (times_n(tycho.tensor { 1, 2 }):tolist()))
    assert(tycho.gradcheck(times_n) < 1e-7)
  end)

  it('becomes a method, is found as an op, and frees what it made', function()
    local record = tycho.kernel(soft_record())
    op.add(record)
    local x, w = tycho.tensor { 1, 3 }, tycho.tensor { 2, 2 }
    assert.same({ 1, 1.5 }, (x:soft_ratio(w, 1):tolist()))
    assert.equal(record, op.record 'soft_ratio')
    assert.equal(tycho.soft_ratio, op.find and x.soft_ratio)
    local names = ' ' .. table.concat(op.names(), ' ') .. ' '
    assert.truthy(names:find(' soft_ratio ', 1, true))
    assert.has_no.errors(function() op.add(tycho.kernel(soft_record())) end)
    local other = soft_record()
    for _, taken in ipairs { 'softmax', 'relu', 'shape', 'item', 'no_grad' } do
      other.name = taken
      assert_raises(function() op.add(tycho.kernel(other)) end, ("op.add: tensors or tycho have a '%s' already"):format(taken))
    end
    tycho.collect()
    local before = tycho.memory().registered
    tycho.scope(function()
      local leaf = tycho.ones({ 9 }):requires_grad_()
      leaf:soft_ratio(tycho.ones { 9 }, 1):sum():backward()
      leaf.grad.storage:free()
    end)
    assert.equal(before, tycho.memory().registered)
  end)

  it('is compiled once and found by the next process', function()
    local compiler = folder .. '/counting'
    local file = assert(io.open(compiler, 'w'))
    file:write(('#!/bin/sh\ncase "$1" in -dump*) ;; *) echo run >> %s/log ;; esac\nexec cc "$@"\n'):format(folder))
    file:close()
    os.execute('chmod +x ' .. compiler)
    local code = [[local twice = require('tycho').kernel { name = 'twice', inputs = { 'x' }, y = '%d * x' }
      local x = require('tycho').tensor { 4 }
      print((twice(x) + twice(x)):item())]]
    assert.equal('16\n', process(code:format(2), 'CC=' .. compiler))
    assert.equal('16\n', process('\n\n' .. code:format(2), 'CC=' .. compiler))
    assert.equal('24\n', process(code:format(3), 'CC=' .. compiler))
    local _, runs = io.open(folder .. '/log'):read('*a'):gsub('run', '')
    assert.equal(2, runs)
    -- Where nothing can be kept it works all the same.
    local out = process(code:format(5), ('CC=%s TYCHO_CACHE=/proc/none'):format(compiler))
    assert.equal('40\n', out)
    out = shell(('ulimit -f 0; TYCHO_CACHE=%s/full ./tycho -e %q'):format(folder, code:format(6):gsub('\n', ' ')))
    assert.truthy(out:find('^tycho: %S+/full/%S+: cannot write: File too large\n$'), out)
    for name in require 'lfs'.dir(folder .. '/cache') do assert(name:match '^%.+$' or name:match '^%x+%.so$', name) end
  end)
end)

on_each_device('a kernel from CUDA text on', function(name)
  it('computes elementwise what the CPU does, whatever the length and the alignment', function()
    local soft = tycho.kernel(soft_record())
    assert(tycho.gradcheck(soft, { device = name }) < 1e-7)
    for _, n in ipairs { 1, 4, 7, 1024, 1031 } do
      for offset = 0, 1 do
        local g = tycho.generator(n, offset)
        local x = g:normal_tensor { n + offset }
        local w, dy = g:normal_tensor { n }, g:normal_tensor { n }
        local function run(where)
          local leaf = x:to(where):clone():requires_grad_()
          local weight = w:to(where):clone():requires_grad_()
          local y = soft(leaf:narrow(0, offset, n), weight, 0.5)
          y:backward(dy:to(where))
          return y, leaf.grad, weight.grad
        end
        local a, da, wa = run 'cpu'
        local b, db, wb = run(name)
        assert_near(a, b, 1e-6)
        assert_near(da, db, 1e-5)
        assert_near(wa, wb, 1e-6)
      end
    end
  end)

  it('computes over rows what the op does', function()
    local softmax = tycho.kernel(rows_record())
    local g = tycho.generator(2)
    local x, dy = g:normal_tensor { 5, 70 }, g:normal_tensor { 5, 70 }
    local expected, got = gradients(x.softmax, 'cpu', dy, { x }), gradients(softmax, name, dy, { x }, 70)
    assert_near(expected[1], got[1], 1e-6)
    assert_near(expected[2], got[2], 1e-6)
    assert(tycho.gradcheck(softmax, { device = name }) < 1e-7)
  end)

  it('has sums that start at zero, several results and whole numbers', function()
    local often, largest = tycho.kernel(histogram_record())(tycho.tensor({ 0, 2, 2, 1, 2, 0 }, 'i32', name),
      tycho.tensor({ 1, 1, 1, 1, 1, 0 }, 'u8', name), 4)
    assert.same({ 1, 1, 3, 0 }, often:tolist())
    assert.same({ 3 }, largest:tolist())
  end)

  it('that is wrong is answered with the compiler\'s message at the line of the Lua file', function()
    local out = process(("local tycho = require 'tycho'\nlocal k = tycho.kernel {\n  cuda = [[\n"
      .. '    __global__ void faulty(real *y, const real *x) {\n      y[0] = undefined_thing + x[0];\n    }]],\n}\n'
      .. "k(tycho.ones({ 3 }, 'f32', '%s'))\n"):format(name))
    assert.truthy(out:find 'script.lua:5: kernel faulty: [^\n]*undefined_thing', out)
  end)

  it('that fails on the device is told of when a result is read, and named where each is waited for', function()
    local fault = name == 'cuda' and 'y[(int64_t)1 << 40] = x[0];' or 'if (threadIdx.x) __syncthreads();'
    local code = ("local tycho = require 'tycho'\n"
      .. 'local bad = tycho.kernel { cuda = [[__global__ void bad(real *y, const real *x, int64_t n) { %s }]] }\n'
      .. "local y = bad(tycho.ones({ 3 }, 'f32', '%s'))\nio.stderr:write 'queued\\n'\ny:sum():item()\n"):format(fault, name)
    local out = process(code)
    local sentence = '^queued\n.*: the device failed: [^\n]*; earlier work may be at fault: run it again with TYCHO_SYNC=1 to see which\n'
    assert.truthy(out:find(sentence), out)
    out = process(code, 'TYCHO_SYNC=1')
    assert.truthy(out:find '^[^\n]*bad: the device failed: ', out)
  end)

  it('is told what is wrong with its arguments', function()
    local x = tycho.ones({ 2 }, 'f32', name)
    assert_raises(function() tycho.kernel(soft_record())(tycho.ones { 2 }, x, 1) end,
      ('kernel soft_ratio: w is on %s, the others are on cpu'):format(name))
    local here = tycho.kernel { c = 'void only_here(real *y, const real *x, int64_t n) {}' }
    assert_raises(function() here(x) end, ('kernel only_here: it has no body for %s; give cuda'):format(name))
    local none = tycho.kernel { cuda = '__global__ void none(real *y, const real *x, int64_t n) {}', grid = 0 }
    assert_raises(function() none(x) end, 'kernel none: sizes of grid and block must be 1 or more, got 0')
    local vast = tycho.kernel { cuda = '__global__ void vast(real *y, const real *x, int64_t n) {}', grid = { 1, 65536 } }
    assert_raises(function() vast(x) end, 'vast: the device failed: ')
    assert.equal(x:numel(), tycho.ones(x.shape, 'f32', name):sum():item()) -- told once
    if name == 'cuda' then return end -- where warps may be cut short, for kernels without sums
    local uneven = tycho.kernel { cuda = '__global__ void uneven(real *y, const real *x, int64_t n) {}', block = 20 }
    assert_raises(function() uneven(x) end, 'uneven', 'whole warps')
  end)
end)

describe('a kernel that is wrong', function()
  it('is answered with the compiler\'s message at the line of the Lua file', function()
    local code = "local tycho = require 'tycho'\nlocal k = tycho.kernel {\n  %s = [[\n    %svoid faulty(real *y, const real *x, int64_t n) {\n"
      .. "      y[0] = undefined_thing + x[0];\n    }]],\n}\n%s\n"
    local out = process(code:format('c', '', 'k(tycho.ones { 3 })'))
    assert.truthy(out:find('script.lua:5: kernel faulty: \'undefined_thing\' undeclared', 1, true), out)
    if device.nvidia 'libnvrtc.so.13' then
      out = process(code:format('cuda', '__global__ ', 'k:check(90)'))
      assert.truthy(out:find('script.lua:5: kernel faulty: identifier "undefined_thing" is undefined', 1, true), out)
    end
    out = process("local tycho = require 'tycho'\nlocal k = tycho.kernel { name = 'faulty', inputs = { 'x' },\n  y = 'x + undefined_thing' }\n"
      .. 'k(tycho.ones { 3 })\n')
    assert.truthy(out:find("script.lua:3: kernel faulty: 'undefined_thing' undeclared", 1, true), out)
    -- Text that no file holds has lines of its own.
    out = process("local tycho = require 'tycho'\nlocal text = 'void faulty(real *y, const real *x) {\\n y[0] = %s; }'\n"
      .. "tycho.kernel { c = text:format 'what' } (tycho.ones { 3 })\n")
    assert.truthy(out:find("kernel faulty:2: kernel faulty: 'what' undeclared", 1, true), out)
  end)

  it('calls no function that nobody defines', function()
    local code = "local tycho = require 'tycho'\nlocal k = tycho.kernel {\n  %s }\nprint(pcall(k, tycho.ones { 3 }))\nprint 'alive'\n"
    local out = process(code:format "name = 'faulty', inputs = { 'x' }, y = 'absent(x)'")
    assert.truthy(out:find("script.lua:3: kernel faulty: implicit declaration of function 'absent'\nalive", 1, true), out)
    out = process(code:format "c = 'double absent(double); void faulty(real *y, const real *x, int64_t n) { y[0] = absent(x[0]); }'")
    assert.truthy(out:find("script.lua:3: kernel faulty: undefined reference to `absent'\nalive", 1, true), out)
  end)

  it('calls itself where it has the name of a function of libc', function()
    local code = "local tycho = require 'tycho'\nprint(tycho.kernel { c = 'void write(real *y, const real *x, int64_t n)"
      .. " { y[0] = 2 * x[0]; }' } (tycho.full({ 1 }, 21)):item())"
    assert.equal('42\n', process(code))
  end)

  it('is told what stands where in its signature', function()
    assert_raises(function() tycho.kernel { cuda = 'int x;' } end, 'kernel: the text defines no function')
    assert_raises(function() tycho.kernel {} end, 'kernel: expected cuda = [[...]]')
    assert_raises(function() tycho.kernel 'text' end, 'kernel: expected a record', 'got string')
    assert_raises(function() tycho.kernel { name = 't', input = { 'x' }, y = 'x' } end, "kernel: unknown option 'input'; did you mean 'inputs'?")
    assert_raises(function() tycho.kernel { name = 't', y = 'x' } end, "kernel: an expression y wants name = 'NAME' and inputs = {'x'}")
    assert_raises(function() tycho.kernel { c = 'void f(real *y, const real *x) {}', bloc = 8 } end, "unknown option 'bloc'; did you mean 'block'?")
    assert_raises(function() tycho.kernel { c = 'void f(real *y, half *x) {}' } end, "kernel f: cannot read the parameter 'half *x'")
    assert_raises(function() tycho.kernel { c = 'void f(const real *x) {}' } end, 'kernel f: no parameter is written to')
    assert_raises(function() tycho.kernel { c = 'void f(real *y) {}', cuda = '__global__ void f(real *z) {}' } end, 'different names or parameters')
    local function with_rule(text) return function() tycho.kernel { c = 'void f(real *y, const real *x) {}', backward = { c = text } } end end
    assert_raises(with_rule 'void b(real *dx, const real *dz) {}', "kernel b: 'dz' is neither dy nor an input or output of f")
    assert_raises(with_rule 'void b(real *dz, const real *dy) {}', "kernel b: its output 'dz' is no gradient")
    assert_raises(with_rule 'void b(real *dx, const real *dy, int k) {}', "kernel b: 'k' is no number of f")
    local function with(field, names)
      return function() tycho.kernel { c = 'void f(real *y, const real *x) {}', [field] = names, backward = function() end } end
    end
    assert_raises(with('zeroed', { 'x' }), "kernel f: zeroed names 'x'; expected some of: y")
    assert_raises(with('save', { 'x', 'z' }), "kernel f: save names 'z'; expected some of: x, y")
    assert_raises(with('save', { 'x', 'y', 'x', 'y', 'x' }), 'kernel f: save names 5 tensors; 4 can be saved')
    assert_raises(function() tycho.kernel { c = 'void f(real *y, real *x) {}' } end, 'kernel f: it reads no tensor (a pointer with const)')
    for _, name in ipairs { 'y', 'n', 'i', 'first', 'x_all', 'x', 'a b' } do
      assert_raises(function() tycho.kernel { name = 't', inputs = { 'x' }, numbers = { name }, y = 'x' } end,
        ("kernel t: '%s' cannot be the name of "):format(name))
    end
  end)

  it('is told what is wrong with its arguments', function()
    local softmax = tycho.kernel(rows_record())
    assert_raises(function() softmax 'text' end, 'row_softmax: x must be a tensor, got string')
    assert_raises(function() softmax(tycho.ones { 2 }) end, 'kernel row_softmax: width must be a whole number, got nil')
    assert_raises(function() softmax(tycho.ones { 2 }, 1.5) end, 'kernel row_softmax: width must be a whole number, got 1.5')
    assert_raises(function() softmax(tycho.ones({ 2 }, 'i64'), 2) end, 'kernel row_softmax: x must be f32 or f64, got i64')
    assert_raises(function() softmax(tycho.ones({ 2 }, 'f16'), 2) end, 'kernel row_softmax: x must be f32 or f64, got f16')
    local soft = tycho.kernel(soft_record())
    assert_raises(function() soft(tycho.ones { 2 }, tycho.ones({ 2 }, 'f64'), 1) end, 'w must be f32, got f64')
    local only = tycho.kernel { cuda = '__global__ void only_there(real *y, const real *x, int64_t n) {}' }
    assert_raises(function() only(tycho.ones { 2 }) end, 'kernel only_there: it has no body for the CPU; give c = [[...]] or lua')
  end)

  it('is told that a compiler or NVRTC is missing', function()
    local code = "local tycho = require 'tycho'\nlocal k = tycho.kernel { name = 'f', inputs = { 'x' }, y = 'x' }\n"
    local out = process(code .. 'k(tycho.ones { 1 })', 'CC=no-such-compiler')
    assert.truthy(out:find("kernel f: there is no compiler 'no-such-compiler' on this machine; install gcc and g++", 1, true), out)
    out = process("require('tycho.device').nvidia = function() end\n" .. code .. 'k:check(90)')
    assert.truthy(out:find('kernel f: NVRTC (libnvrtc.so.13) was not found; install it, or write its folder into TYCHO_CUDA_PATH', 1, true), out)
  end)
end)
