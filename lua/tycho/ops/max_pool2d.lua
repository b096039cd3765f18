-- max_pool2d(x, kernel, stride, padding): x (N,C,H,W); padding counts as -inf; the gradient goes to the first maximum of a window. stride is
-- kernel and padding 0 unless given.
local tensor = require 'tycho.tensor'
local lib = require 'tycho.lib'
local op = require 'tycho.op'

return {
  inputs = { 'x' },
  forward = function(ctx, x, kernel, stride, padding)
    op.check_real('max_pool2d', x)
    if x.ndim ~= 4 then lib.raise('max_pool2d: x must be (N, C, H, W), got ' .. tensor.shape_text(x)) end
    stride, padding = stride or kernel, padding or 0
    op.check_whole('max_pool2d', kernel, 'kernel')
    op.check_whole('max_pool2d', stride, 'stride')
    op.check_whole('max_pool2d', padding, 'padding')
    x = tensor.image(x)
    local function out(size) return math.max(0, math.floor((size + 2 * padding - kernel) / stride) + 1) end
    local shape = { x:size(0), x:size(1), out(x:size(2)), out(x:size(3)) }
    local y, index = tensor.empty_image(shape, x.dtype, x.device), ctx:own(tensor.empty_image(shape, 'u8', x.device))
    lib.check(y.lib.ty_max_pool2d(y.c, index.c, x.c, kernel, stride, padding), y.lib)
    ctx.index, ctx.shape, ctx.kernel, ctx.stride, ctx.padding = index, x.shape, kernel, stride, padding
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
