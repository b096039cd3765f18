-- max(x): largest value along the last dim, and its int64 index (the first of equals). Not differentiable.
local tensor = require 'tycho.tensor'
local lib = require 'tycho.lib'
local op = require 'tycho.op'

return {
  inputs = { 'x' },
  forward = function(_, x, dim)
    op.check_real('max', x)
    tensor.check_last(x, dim, 'max')
    local shape = x.shape
    if #shape == 0 or shape[#shape] == 0 then lib.raise('max: the last dim of ' .. tensor.shape_text(x) .. ' is empty') end
    shape[#shape] = 1
    local y, index = tensor.empty(shape, x.dtype, x.device), tensor.empty(shape, 'i64', x.device)
    lib.check(y.lib.ty_max(y.c, index.c, x.c), y.lib)
    shape[#shape] = nil
    return y:reshape(shape), index:reshape(shape)
  end,
  skip = 'not differentiable',
}
