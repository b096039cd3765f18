-- The windows of max pooling: windows(op, x, kernel, stride, padding) returns the memory for what it makes of an image x (N,C,H,W), y and index
-- (csrc/pool.c), and kernel, stride and padding: stride is kernel and padding 0 unless given. Raises for what is no image or no whole number.
local tensor = require 'tycho.tensor'
local lib = require 'tycho.lib'
local op = require 'tycho.op'

return function(name, x, kernel, stride, padding)
  if x.ndim ~= 4 then lib.raise(('%s: x must be (N, C, H, W), got %s'):format(name, tensor.shape_text(x))) end
  stride, padding = stride or kernel, padding or 0
  op.check_whole(name, kernel, 'kernel')
  op.check_whole(name, stride, 'stride')
  op.check_whole(name, padding, 'padding')
  local function out(size) return math.max(0, math.floor((size + 2 * padding - kernel) / stride) + 1) end
  local shape = { x:size(0), x:size(1), out(x:size(2)), out(x:size(3)) }
  return tensor.empty_image(shape, x.dtype, x.device), tensor.empty_image(shape, 'u8', x.device), kernel, stride, padding
end
