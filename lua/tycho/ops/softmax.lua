-- softmax(x): over the last dim.
local tensor = require 'tycho.tensor'
local lib = require 'tycho.lib'
local op = require 'tycho.op'

return {
  inputs = { 'x' },
  forward = function(ctx, x, dim)
    op.check_real('softmax', x)
    tensor.check_last(x, dim, 'softmax')
    x = tensor.dense(x)
    local y = tensor.empty(x.shape, x.dtype, x.device)
    lib.check(y.lib.ty_softmax(y.c, x.c), y.lib)
    ctx:save(y)
    return y
  end,
  backward = function(ctx, dy)
    local y = ctx:saved()
    dy = tensor.dense(dy)
    local dx = tensor.empty_like(y)
    lib.check(dx.lib.ty_softmax_back(dx.c, dy.c, y.c), dx.lib)
    return dx
  end,
  sample = function(g) return g:normal_tensor({ 3, 5 }, 'f64') end,
}
