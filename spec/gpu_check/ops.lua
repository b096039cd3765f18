-- Times operations of the published step on a device: ./tycho spec/gpu_check/ops.lua DEVICE. One row an operation and precision: milliseconds, and
-- arithmetic or traffic a second by the numbers that it must compute, read and write at least.
local tycho = require 'tycho'
local image = require 'tycho.io.image'
local row = require 'spec.gpu_check.row'
local timing = require 'spec.gpu_check.timing'

local where = arg[1]
local real = where == 'cuda'
local BATCH, WIDTH, ROUNDS, TIMES = real and 1024 or 2, real and 2048 or 32, real and 5 or 1, real and 20 or 1
local generator = tycho.generator(1)

local function random(shape, dtype, make)
  local x = (make or tycho.empty)(shape):copy_(generator:normal_tensor(shape)):to(where)
  return dtype == 'f32' and x or x:to(dtype)
end
local function pictures(dtype, ...) return random({ ... }, dtype, tycho.empty_image) end

-- what: the operation; gflop and gigabytes [opt] of one call of fn.
local function measure(what, mode, gflop, gigabytes, fn)
  local function call() tycho.scope(fn) end
  timing(where, 1, 2, call)
  local seconds = timing(where, ROUNDS, TIMES, call)
  row { what = what, mode = mode, milliseconds = seconds * 1e3, tflops = gflop and gflop / seconds / 1e3, gigabytes_per_second = gigabytes and
    gigabytes / seconds }
end

local bytes = (generator:uniform_tensor({ 2 * BATCH, 128, 128, 3 }) * 255):to 'u8':to(where)
local picked = {}
for i = 1, BATCH do picked[i] = generator:integer(2 * BATCH) end
local index = tycho.tensor(picked, 'i64', where)
measure('gather and normalise images', 'float32', nil, BATCH * 128 * 128 * 3 * 5e-9, function()
  image.normalize(bytes, { 0.5, 0.5, 0.5 }, { 0.2, 0.2, 0.2 }, index)
end)

for _, dtype in ipairs { 'f32', 'f16' } do
  local mode, size = dtype == 'f32' and 'float32' or 'fp16', dtype == 'f32' and 4 or 2
  for stage = 1, 4 do
    local channels, side = 64 * 2 ^ (stage - 1), 64 / 2 ^ stage
    local x, w = pictures(dtype, BATCH, channels, side, side), pictures(dtype, channels, channels, 3, 3)
    local gflop = 2 * BATCH * side ^ 2 * channels ^ 2 * 9 / 1e9
    local y = tycho.empty_image(x.shape, dtype, where)
    local dw = tycho.empty_image(w.shape, dtype, where)
    local C = x.lib
    local name = ('conv 3x3, %d channels at %dx%d'):format(channels, side, side)
    measure(name, mode, gflop, nil, function() tycho.lib.check(C.ty_conv2d(y.c, x.c, w.c, 1, 1, 1), C) end)
    measure(name .. ', to images', mode, gflop, nil, function() tycho.lib.check(C.ty_conv2d_back_input(y.c, x.c, w.c, 1, 1), C) end)
    measure(name .. ', to weights', mode, gflop, nil, function() tycho.lib.check(C.ty_conv2d_back_weight(dw.c, x.c, x.c, 1, 1), C) end)
  end
  local x = pictures(dtype, BATCH, 64, 32, 32)
  local one, zero = random({ 64 }, 'f32'), random({ 64 }, 'f32')
  local C, bytes_of_x, mean, dweight, dbias = x.lib, x:numel() * size / 1e9, tycho.empty_like(one), tycho.empty_like(one), tycho.empty_like(one)
  measure('batch norm and ReLU, 64 channels at 32x32', mode, nil, 3 * bytes_of_x, function()
    x:batch_norm(one, zero, nil, { training = true, relu = true })
  end)
  local dx, passed = tycho.empty_like(x), tycho.empty_like(x)
  measure('batch norm and ReLU, gradient in two parts, a residual', mode, nil, 8 * bytes_of_x, function()
    tycho.lib.check(C.ty_batch_norm_back(dx.c, dweight.c, dbias.c, passed.c, x.c, x.c, x.c, x.c, one.c, zero.c, zero.c, one.c, 1, 0), C)
  end)
  local wide, y, places = pictures(dtype, BATCH, 64, 64, 64), tycho.empty_like(x), tycho.empty_like(x, 'u8')
  local dwide = tycho.empty_like(wide)
  measure('batch norm, ReLU and max pooling, 64 channels at 64x64', mode, nil, (9 + 1 / size) * bytes_of_x, function()
    tycho.lib.check(C.ty_batch_norm_statistics(mean.c, dweight.c, nil, nil, wide.c, 0.1, 1e-5), C)
    tycho.lib.check(C.ty_batch_norm_pool(y.c, places.c, wide.c, zero.c, one.c, one.c, zero.c, 1, 3, 2, 1), C)
  end)
  measure('batch norm, ReLU and max pooling, gradient', mode, nil, (21 + 1 / size) * bytes_of_x, function()
    tycho.lib.check(C.ty_batch_norm_pool_back(dwide.c, dweight.c, dbias.c, y.c, places.c, wide.c, one.c, zero.c, zero.c, one.c, 1, 0, 3, 2, 1), C)
  end)
  local t, weight = random({ BATCH, WIDTH }, dtype), random({ 4 * WIDTH, WIDTH }, dtype)
  measure(('linear %d to %d'):format(WIDTH, 4 * WIDTH), mode, 2 * BATCH * WIDTH * 4 * WIDTH / 1e9, nil, function() t:linear(weight) end)
  measure('GELU', mode, nil, 2 * t:numel() * size / 1e9, function() t:gelu() end)
  local qkv = random({ math.max(BATCH / 128, 1), 128, 3 * WIDTH }, dtype)
  measure('attention, 4 heads, 128 tokens', mode, 4 * qkv:size(0) * 128 ^ 2 * WIDTH / 1e9, nil, function() qkv:self_attention(4, {}) end)
end
local t, one, zero = random({ BATCH, WIDTH }, 'f32'), random({ WIDTH }, 'f32'), random({ WIDTH }, 'f32')
measure('layer norm', 'float32', nil, 2 * t:numel() * 4e-9, function() t:layer_norm(one, zero) end)

local p = random({ real and 150e6 or 1000 }, 'f32'):requires_grad_()
p.grad = random(p.shape, 'f32')
local optimizer = tycho.optim.Adam({ p }, {})
measure('Adam, 150 M parameters', 'float32', nil, 28 * p:numel() / 1e9, function() optimizer:step() end)
