-- max_pool2d(x, kernel, stride, padding): x (N,C,H,W); padding counts as -inf; the gradient goes to the first maximum of a window. stride is
-- kernel and padding 0 unless given.
local tensor = require 'tycho.tensor'
local lib = require 'tycho.lib'
local op = require 'tycho.op'
local windows = require 'tycho.windows'

return {
  inputs = { 'x' },
  forward = function(ctx, x, kernel, stride, padding)
    op.check_real('max_pool2d', x)
    local y = windows(ctx, x, kernel, stride, padding)
    x = tensor.image(x)
    lib.check(y.lib.ty_max_pool2d(y.c, ctx.index.c, x.c, ctx.kernel, ctx.stride, ctx.padding), y.lib)
    ctx.shape = x.shape
    return y
  end,
  backward = function(ctx, dy)
    dy = tensor.image(dy)
    local dx = tensor.empty_image(ctx.shape, dy.dtype, dy.device)
    lib.check(dx.lib.ty_max_pool2d_back(dx.c, dy.c, ctx.index.c, ctx.kernel, ctx.stride, ctx.padding), dx.lib)
    return dx
  end,
  sample = function(g) return g:normal_tensor({ 2, 3, 7, 6 }, 'f64'), 3, 2, 1 end,
}
