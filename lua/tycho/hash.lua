-- hash(x): XXH64 as 16 hex digits of a string, of the dtype, shape and values of a tensor, or, as hash(p, n), of n bytes at a pointer. To tell
-- things apart and to find damage, not against forgers.
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'

local function digits(data, bytes) return bit.tohex(lib.cpu.ty_hash(data, bytes), 16) end

return function(x, bytes)
  if bytes then return digits(x, bytes) end
  if not tensor.is_tensor(x) then return digits(x, #x) end
  local dense = tensor.dense(x:cpu())
  local text = ('%s %s %s'):format(x.dtype, tensor.shape_text(x), digits(dense:ptr(), dense:numel() * dense.type.size))
  return digits(text, #text)
end
