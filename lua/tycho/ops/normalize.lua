-- normalize(x, eps): x / max(|x|, eps) over the last dim; eps 1e-12 as torch.nn.functional.normalize.
local tensor = require 'tycho.tensor'
local lib = require 'tycho.lib'
local op = require 'tycho.op'

return {
  inputs = { 'x' },
  forward = function(ctx, x, eps)
    op.check_real('normalize', x)
    eps = eps or 1e-12
    op.check_number('normalize', eps, 'eps')
    x = tensor.dense(x)
    local shape = x.shape
    local y = tensor.empty(shape, x.dtype, x.device)
    local width = shape[#shape] or 1
    local norm = ctx:own(tensor.empty({ width > 0 and x:numel() / width or 0 }, x.dtype, x.device))
    lib.check(y.lib.ty_normalize(y.c, norm.c, x.c, eps), y.lib)
    ctx:save(y, norm)
    ctx.eps = eps
    return y
  end,
  backward = function(ctx, dy)
    local y, norm = ctx:saved()
    dy = tensor.dense(dy)
    local dx = tensor.empty_like(y)
    lib.check(dx.lib.ty_normalize_back(dx.c, dy.c, y.c, norm.c, ctx.eps), dx.lib)
    return dx
  end,
  sample = function(g) return g:normal_tensor({ 3, 5 }, 'f64') end,
}
