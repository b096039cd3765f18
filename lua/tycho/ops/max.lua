-- max(x): largest value along the last dim, and its int64 index (the first of equals). The gradient goes to the element that was taken.
local tensor = require 'tycho.tensor'
local lib = require 'tycho.lib'
local op = require 'tycho.op'

return {
  inputs = { 'x' },
  forward = function(ctx, x, dim)
    op.check_real('max', x)
    tensor.check_last(x, dim, 'max')
    local shape = x.shape
    if #shape == 0 or shape[#shape] == 0 then lib.raise('max: the last dim of ' .. tensor.shape_text(x) .. ' is empty') end
    shape[#shape] = 1
    local y, index = tensor.empty(shape, x.dtype, x.device), tensor.empty(shape, 'i64', x.device)
    lib.check(y.lib.ty_max(y.c, index.c, x.c), y.lib)
    shape[#shape] = nil
    ctx.shape = x.shape
    ctx:save(index)
    return y:reshape(shape), index:reshape(shape)
  end,
  backward = function(ctx, dy)
    local index, shape = ctx:saved(), ctx.shape
    local n, rows = shape[#shape], index:numel()
    local zero, taken = tensor.zeros({ rows, n }, dy.dtype, dy.device), tensor.empty({ rows, n }, dy.dtype, dy.device)
    -- That of cross entropy is (p - one_hot(target)) / rows: ones at index.
    lib.check(taken.lib.ty_cross_entropy_back(taken.c, tensor.full({}, -rows, dy.dtype, dy.device).c, zero.c, index:reshape({ rows }).c), taken.lib)
    return (taken * dy:reshape { rows, 1 }):reshape(shape)
  end,
  sample = function(g) return g:normal_tensor({ 2, 3, 4 }, 'f64') end,
}
