-- cross_entropy(x, target): mean over rows of -log softmax(x)[target]. x (rows, classes); target int64 (rows), classes from 0.
local tensor = require 'tycho.tensor'
local lib = require 'tycho.lib'
local op = require 'tycho.op'

return {
  inputs = { 'x' },
  forward = function(ctx, x, target)
    op.check_real('cross_entropy', x)
    target = op.check_index('cross_entropy', target, 'target', x.device)
    x = tensor.dense(x)
    local loss, p = tensor.empty({}, x.dtype, x.device), ctx:own(tensor.empty(x.shape, x.dtype, x.device))
    lib.check(loss.lib.ty_cross_entropy(loss.c, p.c, x.c, target.c), loss.lib)
    ctx.p = p
    ctx:save(target)
    return loss
  end,
  backward = function(ctx, dloss)
    local target, dx = ctx:saved(), tensor.empty_like(ctx.p)
    lib.check(dx.lib.ty_cross_entropy_back(dx.c, dloss.c, ctx.p.c, target.c), dx.lib)
    return dx
  end,
  sample = function(g) return g:normal_tensor({ 4, 3 }, 'f64'), { 2, 0, 1, 1 } end,
}
