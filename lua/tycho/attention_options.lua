-- What attention and self_attention take beside their inputs: attention_options(ctx, options, dtype) returns the mask and the memories, these in
-- that dtype, nil where there are none. Raises for what is no tensor, and for memory where a gradient is wanted.
local lib = require 'tycho.lib'
local op = require 'tycho.op'

return function(ctx, options, dtype)
  local mask = op.check_tensor(ctx.op, options.mask, 'mask?')
  local memory_k, memory_v = op.check_tensor(ctx.op, options.memory_k, 'memory_k?'), op.check_tensor(ctx.op, options.memory_v, 'memory_v?')
  if memory_k and ctx.grad then lib.raise(ctx.op .. ': memory is for frozen models; run inside tycho.no_grad') end
  return mask, memory_k and memory_k:to(dtype), memory_v and memory_v:to(dtype)
end
