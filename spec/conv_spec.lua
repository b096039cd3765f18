-- Convolution in float against the plain loops in double, over shapes that no tile, panel or block divides.
local tycho = require 'tycho'
local failure = require 'spec.failure'

-- {n, in, h, w}, out, kernel, stride, padding
local cases = {
  { { 1, 1, 1, 1 }, 1, 1, 1, 0 }, { { 1, 1, 1, 1 }, 3, 3, 1, 1 }, { { 2, 3, 1, 7 }, 5, 3, 1, 1 }, { { 1, 1, 9, 9 }, 1, 3, 1, 1 },
  { { 1, 17, 5, 6 }, 33, 3, 1, 1 }, { { 3, 16, 7, 13 }, 16, 3, 1, 1 }, { { 2, 64, 32, 32 }, 64, 3, 1, 1 }, { { 5, 31, 11, 10 }, 47, 3, 1, 1 },
  { { 4, 32, 4, 4 }, 64, 3, 1, 1 }, { { 8, 64, 2, 2 }, 64, 3, 1, 1 }, { { 16, 48, 3, 5 }, 32, 3, 1, 1 }, { { 2, 16, 8, 8 }, 16, 3, 1, 0 },
  { { 2, 16, 9, 7 }, 24, 3, 2, 1 }, { { 3, 3, 31, 33 }, 64, 7, 2, 3 }, { { 2, 64, 9, 9 }, 128, 1, 2, 0 }, { { 2, 20, 6, 5 }, 70, 1, 1, 0 },
  { { 1, 128, 16, 16 }, 128, 3, 1, 1 }, { { 2, 5, 12, 12 }, 7, 5, 1, 2 }, { { 1, 4, 6, 6 }, 4, 3, 3, 2 },
  -- Weight gradients in parts: of several images or of fewer than one, of several chunks, of unequal length, with taps that see padding only.
  { { 9, 16, 45, 50 }, 32, 3, 1, 1 }, { { 12, 16, 64, 64 }, 16, 3, 1, 1 }, { { 9, 20, 21, 23 }, 24, 3, 2, 1 }, { { 36, 16, 90, 90 }, 16, 3, 2, 1 },
  { { 12, 64, 24, 24 }, 128, 3, 2, 1 }, { { 9, 3, 31, 33 }, 64, 7, 2, 3 }, { { 9, 5, 12, 12 }, 7, 5, 1, 2 }, { { 3, 17, 1, 1 }, 5, 5, 1, 2 },
  { { 90, 17, 1, 2 }, 5, 5, 1, 2 },
}

local function l2(x) return math.sqrt(x:square():sum():item()) end
local function distance(x, truth)
  local norm = l2(truth)
  local difference = l2(x:detach():to 'f64' - truth)
  return norm == 0 and difference or difference / norm
end

-- Output, gradient of the input, gradient of the weight, and the output where no gradient is asked for.
local function results(dtype, x, w, dy, stride, padding)
  x, w = tycho.empty_image(x.shape, dtype):copy_(x):requires_grad_(), tycho.empty_image(w.shape, dtype):copy_(w):requires_grad_()
  local y = x:conv2d(w, stride, padding)
  y:backward(tycho.empty_like(y, dtype):copy_(dy(y.shape)))
  return { y:detach(), x.grad, w.grad, tycho.no_grad(x.conv2d, x, w, stride, padding) }
end

describe('convolution', function()
  after_each(function() tycho.set_exact(false) end)
  for _, mode in ipairs { { 'exact', true, { 1e-6, 1e-6, 3e-6, 1e-6 } }, { 'fast', false, { 1e-6, 1e-5, 1e-5, 1e-5 } } } do
    it('agrees with double precision: ' .. mode[1], function()
      for i, case in ipairs(cases) do
        local shape, out, kernel, stride, padding = unpack(case)
        local g = tycho.generator(7, i)
        -- Activations behind a ReLU, and weights of He's scale.
        local x = tycho.no_grad(function() return g:normal_tensor(shape):relu() end)
        local w = g:normal_tensor({ out, shape[2], kernel, kernel }):mul_(math.sqrt(2 / (shape[2] * kernel * kernel)))
        local step = g.step
        local function dy(size)
          g.step = step
          return g:normal_tensor(size)
        end
        tycho.set_exact(mode[2])
        local got, truth = results('f32', x, w, dy, stride, padding), results('f64', x, w, dy, stride, padding)
        for k, name in ipairs { 'y', 'dx', 'dw', 'y without gradient' } do
          local error_ = distance(got[k], truth[k])
          assert(error_ <= mode[3][k], ('%s of case %d: relative error %.2g, at most %.0g'):format(name, i, error_, mode[3][k]))
        end
      end
    end)
  end
  it('says when a kernel is larger than its image', function()
    local message = failure(tycho.conv2d, tycho.zeros { 1, 1, 2, 2 }, tycho.zeros { 1, 1, 5, 5 }, 1, 1)
    assert.truthy(message:find('a 5x5 kernel with stride 1 and padding 1 does not fit x (1, 1, 2, 2)', 1, true), message)
  end)
end)
