-- index_select(x, index): rows x[index[i]] along dim 0. index: int64 tensor or Lua list of row numbers, counted from 0.
local tensor = require 'tycho.tensor'
local lib = require 'tycho.lib'
local op = require 'tycho.op'

return {
  inputs = { 'x' },
  forward = function(ctx, x, index)
    index = op.check_index('index_select', index, 'index', x.device)
    local shape = x.shape
    if #shape == 0 then lib.raise('index_select: a scalar has no rows') end
    shape[1] = index:numel()
    local y = tensor.empty(shape, x.dtype, x.device)
    lib.check(y.lib.ty_gather(y.c, x.c, index.c), y.lib)
    ctx.form = ctx.grad and tensor.form(x)
    ctx:save(index)
    return y
  end,
  backward = function(ctx, dy)
    local form, index = ctx.form, ctx:saved()
    local dtype = form.type.short and 'f32' or form.type.name -- rows that were picked often are sums of many
    local dx = tensor.zeros(form.shape, dtype, dy.device)
    lib.check(dx.lib.ty_scatter_add(dx.c, dy:to(dtype).c, index.c), dx.lib)
    return dx
  end,
  sample = function(g) return g:normal_tensor({ 4, 3 }, 'f64'), { 2, 0, 2 } end,
}
