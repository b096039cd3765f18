-- Ops leave the rest undone once nobody wants their result (Ctrl-C). The flag that they look at is pointed at the first element of that result, 0 at
-- first: an op that has come so far as to write it is in the middle of its work, however fast the machine.
local ffi = require 'ffi'
local tycho = require 'tycho'
local shell = require 'spec.shell'

local function random(shape, dtype) return tycho.generator(1):normal_tensor(shape, dtype) end
local function image(shape, dtype) return tycho.empty_image(shape, dtype):copy_(random(shape, dtype)) end

-- What call(y) leaves in y when nothing stops it, and when its own first element does. y: zeros.
local function whole_and_part(y, call)
  local whole, part, library = tycho.zeros_like(y), y, y.lib
  call(library, whole.c)
  local flag, own = library.ty_unwanted, ffi.cast('const volatile int *', part.c.data)
  library.ty_unwanted = part.dtype == 'f64' and own + 1 or own -- the half with the exponent
  local ok, message = pcall(call, library, part.c)
  library.ty_unwanted = flag
  assert(ok, message)
  return whole, part
end

-- name -> function(dtype) that returns y and what computes it
local cases = {
  ['a product'] = function(dtype)
    local a = random({ 2600, 2600 }, dtype)
    return { 2600, 2600 }, function(C, y) return C.ty_matmul(y, a.c, a.c, 0) end
  end,
  ['a convolution by tiles'] = function(dtype)
    local x, w = image({ 4, 32, 64, 64 }, dtype), image({ 32, 32, 3, 3 }, dtype)
    return { 4, 32, 64, 64 }, function(C, y) return C.ty_conv2d(y, x.c, w.c, 1, 1, 1) end
  end,
  ['a direct convolution'] = function(dtype)
    local x, w = image({ 4, 16, 64, 64 }, dtype), image({ 32, 16, 5, 5 }, dtype)
    return { 4, 32, 32, 32 }, function(C, y) return C.ty_conv2d(y, x.c, w.c, 2, 2, 1) end
  end,
  ['the gradient of an image by tiles'] = function(dtype)
    local dy, w = image({ 4, 32, 64, 64 }, dtype), image({ 32, 32, 3, 3 }, dtype)
    return { 4, 32, 64, 64 }, function(C, dx) return C.ty_conv2d_back_input(dx, dy.c, w.c, 1, 1) end
  end,
  ['the gradient of weights by tiles'] = function(dtype)
    local x = image({ 2, 128, 16, 16 }, dtype)
    return { 128, 128, 3, 3 }, function(C, dw) return C.ty_conv2d_back_weight(dw, x.c, x.c, 1, 1) end
  end,
  ['the gradient of weights in parts'] = function(dtype)
    local x = image({ 4, 32, 128, 128 }, dtype)
    return { 32, 32, 3, 3 }, function(C, dw) return C.ty_conv2d_back_weight(dw, x.c, x.c, 1, 1) end
  end,
  ['the direct gradient of weights'] = function(dtype)
    local x = image({ 2, 32, 32, 32 }, dtype)
    return { 32, 32, 5, 5 }, function(C, dw) return C.ty_conv2d_back_weight(dw, x.c, x.c, 1, 2) end
  end,
  attention = function(dtype)
    local q, p = random({ 4, 4, 200, 64 }, dtype), tycho.empty({ 4, 4, 200, 200 }, dtype)
    return { 4, 4, 200, 64 }, function(C, y) return C.ty_attention(y, p.c, q.c, q.c, q.c, nil, nil, nil, 0.1) end
  end,
  ['a batch norm'] = function(dtype)
    local x, one, zero = image({ 16, 32, 32, 32 }, dtype), tycho.ones({ 32 }, dtype), tycho.zeros({ 32 }, dtype)
    return { 16, 32, 32, 32 }, function(C, y) return C.ty_batch_norm(y, x.c, zero.c, one.c, one.c, zero.c, nil, 0) end
  end,
  ['a batch norm and max pooling'] = function(dtype)
    local x, one, zero = image({ 16, 32, 64, 64 }, dtype), tycho.ones({ 32 }, dtype), tycho.zeros({ 32 }, dtype)
    local index = tycho.empty_image({ 16, 32, 32, 32 }, 'u8')
    return { 16, 32, 32, 32 }, function(C, y) return C.ty_batch_norm_pool(y, index.c, x.c, zero.c, one.c, one.c, zero.c, 0, 3, 2, 1) end
  end,
  ['a layer norm'] = function(dtype)
    local x, one, zero = random({ 4000, 64 }, dtype), tycho.ones({ 64 }, dtype), tycho.zeros({ 64 }, dtype)
    local mean, rstd = tycho.empty({ 4000 }, dtype), tycho.empty({ 4000 }, dtype)
    return { 4000, 64 }, function(C, y) return C.ty_layer_norm(y, mean.c, rstd.c, x.c, one.c, zero.c, 1e-5) end
  end,
  ['a softmax'] = function(dtype)
    local x = random({ 4000, 64 }, dtype)
    return { 4000, 64 }, function(C, y) return C.ty_softmax(y, x.c) end
  end,
  ['sums of rows'] = function(dtype)
    local x = random({ 4000, 64 }, dtype)
    return { 4000, 1 }, function(C, y) return C.ty_sum(y, x.c) end
  end,
  ['an elementwise function'] = function(dtype)
    local x = random({ 4000, 1000 }, dtype)
    return { 4000, 1000 }, function(C, y) return C.ty_gelu(y, x.c) end
  end,
  ['a copy in another order'] = function(dtype)
    local x = random({ 1000, 4000 }, dtype):transpose(0, 1)
    return { 4000, 1000 }, function(C, y) return C.ty_copy(y, x.c) end
  end,
  ['a gathering of rows'] = function(dtype)
    local x, index = random({ 4000, 100 }, dtype), tycho.zeros({ 40000 }, 'i64')
    return { 40000, 100 }, function(C, y) return C.ty_gather(y, x.c, index.c) end
  end,
  ['a pooling'] = function(dtype)
    local x, index = image({ 8, 32, 64, 64 }, dtype), tycho.empty_image({ 8, 32, 32, 32 }, 'u8')
    return { 8, 32, 32, 32 }, function(C, y) return C.ty_max_pool2d(y, index.c, x.c, 3, 2, 1) end
  end,
  ['random numbers'] = function() return { 4000, 1000 }, function(C, y) return C.ty_normal(y, 1, 2, 3) end end,
}

describe('an op that nobody wants any more stops in its middle', function()
  local names = {}
  for name in pairs(cases) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    for _, dtype in ipairs { 'f32', 'f64' } do
      it(name .. ' ' .. dtype, function()
        local shape, call = cases[name](dtype)
        local y = (#shape == 4 and name ~= 'attention' and tycho.empty_image or tycho.empty)(shape, dtype):fill_(0)
        local whole, part = whole_and_part(y, function(library, c) assert(call(library, c) == 0, ffi.string(library.ty_error())) end)
        local first = part:contiguous():reshape({ -1 })[0]:item()
        assert(first ~= 0, 'it did not begin')
        assert((whole - part):abs():sum():item() > 0, 'it came to its end')
      end)
    end
  end
end)

describe('a training', function()
  it('is stopped by a terminal that closes, though its shell tells it again, not under nohup, and outlives who reads what it says', function()
    local code = [[
      local ffi = require 'ffi'
      ffi.cdef 'int kill(int pid, int signal); int getpid(void);'
      tycho.on_interrupt 'flag'
      for _, signal in ipairs { 1, 1, 13 } do ffi.C.kill(ffi.C.getpid(), signal) end
      print(tycho.interrupted())
      tycho.on_interrupt(nil)
      ffi.C.kill(ffi.C.getpid(), 13)]]
    assert.equal('true\n', (shell(('./tycho -e "%s"'):format(code))))
    assert.equal('false\n', (shell(('trap "" HUP; ./tycho -e "%s"'):format(code))))
  end)
end)
