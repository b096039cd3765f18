-- The windows of max pooling, for the forward of an op: windows(ctx, x, kernel, stride, padding) returns the memory for what they make of an image x
-- (N,C,H,W), and leaves in ctx index (csrc/pool.c), kernel, stride and padding: stride is kernel and padding 0 unless given. Raises for what is no
-- image or no whole number.
local tensor = require 'tycho.tensor'
local lib = require 'tycho.lib'
local op = require 'tycho.op'

return function(ctx, x, kernel, stride, padding)
  if x.ndim ~= 4 then lib.raise(('%s: x must be (N, C, H, W), got %s'):format(ctx.op, tensor.shape_text(x))) end
  stride, padding = stride or kernel, padding or 0
  op.check_whole(ctx.op, kernel, 'kernel')
  op.check_whole(ctx.op, stride, 'stride')
  op.check_whole(ctx.op, padding, 'padding')
  local function out(size) return math.max(0, math.floor((size + 2 * padding - kernel) / stride) + 1) end
  local shape = { x:size(0), x:size(1), out(x:size(2)), out(x:size(3)) }
  ctx.index, ctx.kernel, ctx.stride, ctx.padding = ctx:own(tensor.empty_image(shape, 'u8', x.device)), kernel, stride, padding
  return tensor.empty_image(shape, x.dtype, x.device)
end
