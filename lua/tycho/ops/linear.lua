-- linear(x, w, b): x w^T + b. x (...,K), w (N,K), b (N) or nil -> (...,N)
local tensor = require 'tycho.tensor'
local lib = require 'tycho.lib'
local op = require 'tycho.op'

-- dy^T x (M,N), (M,K) -> (N,K): a sum over all rows, in float32 also from 16 bit.
local function weight_gradient(dy, x)
  local dw = tensor.empty({ dy:size(1), x:size(1) }, x.type.short and 'f32' or x.dtype, x.device)
  lib.check(dw.lib.ty_matmul(dw.c, dy:transpose(0, 1).c, x.c, 0), dw.lib)
  return dw
end

return {
  inputs = { 'x', 'w', 'b?' },
  forward = function(ctx, x, w, b)
    op.check_real('linear', x)
    local shape = x.shape
    local width = shape[#shape]
    if w.ndim ~= 2 or w:size(1) ~= width then
      lib.raise(('linear: x %s needs a weight of shape (out, %s), got %s'):format(tensor.shape_text(x), tostring(width), tensor.shape_text(w)))
    end
    ctx.shape = x.shape
    local count = 1
    for i = 1, #shape - 1 do count = count * shape[i] end
    local rows = tensor.dense(x):reshape { count, width }
    shape[#shape] = w:size(0)
    b = b and tensor.dense(b)
    local y = tensor.empty({ rows:size(0), w:size(0) }, x.dtype, x.device)
    lib.check(y.lib.ty_linear(y.c, rows.c, w.c, b and b.c), y.lib)
    ctx:save(rows, w)
    return y:reshape(shape)
  end,
  backward = function(ctx, dy)
    local x, w = ctx:saved()
    dy = dy:reshape { x:size(0), w:size(0) }
    return ctx.needs[1] and dy:matmul(w):reshape(ctx.shape), ctx.needs[2] and weight_gradient(dy, x), ctx.needs[3] and dy:sum(0)
  end,
  sample = function(g) return g:normal_tensor({ 2, 3, 4 }, 'f64'), g:normal_tensor({ 5, 4 }, 'f64'), g:normal_tensor({ 5 }, 'f64') end,
}
