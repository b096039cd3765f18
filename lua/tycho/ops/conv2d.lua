-- conv2d(x, w, stride, padding): cross-correlation. x (N,I,H,W), w (O,I,KH,KW) -> (N,O,H',W'), H' = (H + 2 padding - KH) / stride + 1.
-- stride is 1 and padding 0 unless given.
local engines = require 'tycho.conv_engines'
local tensor = require 'tycho.tensor'
local lib = require 'tycho.lib'
local op = require 'tycho.op'

return {
  inputs = { 'x', 'w' },
  forward = function(ctx, x, w, stride, padding)
    op.check_real('conv2d', x)
    stride, padding = stride or 1, padding or 0
    op.check_whole('conv2d', stride, 'stride')
    op.check_whole('conv2d', padding, 'padding')
    if x.ndim ~= 4 or w.ndim ~= 4 or x:size(1) ~= w:size(1) then
      lib.raise(('conv2d: expected x (N, I, H, W) and w (O, I, KH, KW), got %s and %s'):format(tensor.shape_text(x), tensor.shape_text(w)))
    end
    local function out(size, kernel)
      local n = math.floor((size + 2 * padding - kernel) / stride) + 1
      if n < 1 or stride < 1 or padding < 0 then
        lib.raise(('conv2d: a %dx%d kernel with stride %g and padding %g does not fit x %s'):format(w:size(2), w:size(3), stride, padding,
          tensor.shape_text(x)))
      end
      return n
    end
    x, w = tensor.image(x), tensor.image(w)
    local y = tensor.empty_image({ x:size(0), w:size(0), out(x:size(2), w:size(2)), out(x:size(3), w:size(3)) }, x.dtype, x.device)
    engines.convolve(0, y, x, w, stride, padding, ctx.grad)
    ctx:save(x, w)
    ctx.stride, ctx.padding = stride, padding
    return y
  end,
  backward = function(ctx, dy)
    local x, w = ctx:saved()
    dy = tensor.image(dy)
    local dx, dw
    if ctx.needs[1] then
      dx = tensor.empty_image(x.shape, x.dtype, x.device)
      engines.convolve(1, dy, dx, w, ctx.stride, ctx.padding)
    end
    if ctx.needs[2] then
      dw = tensor.empty_image(w.shape, w.dtype, w.device)
      engines.convolve(2, dy, x, dw, ctx.stride, ctx.padding)
    end
    return dx, dw
  end,
  sample = function(g) return g:normal_tensor({ 2, 3, 7, 6 }, 'f64'), g:normal_tensor({ 4, 3, 3, 3 }, 'f64'), 2, 1 end,
}
