-- avg_pool2d(x): global average, (N,C,H,W) -> (N,C).
local tensor = require 'tycho.tensor'
local lib = require 'tycho.lib'
local op = require 'tycho.op'

return {
  inputs = { 'x' },
  forward = function(ctx, x)
    op.check_real('avg_pool2d', x)
    if x.ndim ~= 4 then lib.raise('avg_pool2d: x must be (N, C, H, W), got ' .. tensor.shape_text(x)) end
    x = tensor.image(x)
    local y = tensor.empty({ x:size(0), x:size(1) }, x.dtype, x.device)
    lib.check(y.lib.ty_avg_pool2d(y.c, x.c), y.lib)
    ctx.shape = x.shape
    return y
  end,
  backward = function(ctx, dy)
    dy = tensor.dense(dy)
    local dx = tensor.empty_image(ctx.shape, dy.dtype, dy.device)
    lib.check(dx.lib.ty_avg_pool2d_back(dx.c, dy.c), dx.lib)
    return dx
  end,
  sample = function(g) return g:normal_tensor({ 2, 3, 4, 5 }, 'f64') end,
}
