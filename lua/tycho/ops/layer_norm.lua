-- layer_norm(x, weight, bias, eps): normalises over the last dim, D; weight and bias (D); eps 1e-5.
local tensor = require 'tycho.tensor'
local lib = require 'tycho.lib'
local op = require 'tycho.op'

return {
  inputs = { 'x', 'weight', 'bias' },
  forward = function(ctx, x, weight, bias, eps)
    op.check_real('layer_norm', x)
    eps = eps or 1e-5
    op.check_number('layer_norm', eps, 'eps')
    x, weight, bias = tensor.dense(x), tensor.dense(weight), tensor.dense(bias)
    local y = tensor.empty(x.shape, x.dtype, x.device)
    local rows = x:numel() / math.max(1, x:size(-1))
    local mean, rstd = ctx:own(tensor.empty({ rows }, x.dtype, x.device)), ctx:own(tensor.empty({ rows }, x.dtype, x.device))
    lib.check(y.lib.ty_layer_norm(y.c, mean.c, rstd.c, x.c, weight.c, bias.c, eps), y.lib)
    ctx:save(x, weight)
    ctx.mean, ctx.rstd = mean, rstd
    return y
  end,
  backward = function(ctx, dy)
    local x, weight = ctx:saved()
    dy = tensor.dense(dy)
    local dx, dweight, dbias = tensor.empty_like(x), tensor.empty_like(weight), tensor.empty_like(weight)
    lib.check(dx.lib.ty_layer_norm_back(dx.c, dweight.c, dbias.c, dy.c, x.c, weight.c, ctx.mean.c, ctx.rstd.c), dx.lib)
    return dx, dweight, dbias
  end,
  sample = function(g) return g:normal_tensor({ 3, 5 }, 'f64'), g:normal_tensor({ 5 }, 'f64'), g:normal_tensor({ 5 }, 'f64') end,
}
