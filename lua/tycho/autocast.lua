-- Mixed precision as PyTorch's autocast does it: inside tycho.autocast('fp16', fn, ...) products and convolutions are computed in 16 bit, with sums
-- in float32, what needs float32's range or digits in float32, and all else in what comes. Parameters stay float32: the copies of them that the
-- products read are part of the tape, and their gradients arrive in float32. Backward belongs outside.
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'

local M = {}

-- PyTorch's lists (its page "Automatic Mixed Precision", CUDA ops), as far as these ops go. square is its pow; max it leaves as it comes, but
-- there is no 16-bit kernel of it here, and float32 gives the same values. sum (float32 there) takes 16 bit as it is and gives
-- float32, and so does mean. Elementwise ops of two types, and cat, give the wider one; a number has no type, and
-- what it is divided by becomes float32.
local policies = {}
for _, name in ipairs { 'conv2d', 'linear', 'matmul', 'attention', 'self_attention' } do policies[name] = 'low' end
for _, name in ipairs { 'exp', 'log', 'pow', 'reciprocal', 'square', 'softmax', 'layer_norm', 'normalize', 'cosine_similarity', 'cross_entropy',
  'pair_cross_entropy', 'mse', 'max' } do
  policies[name] = 'full'
end

-- How many of its inputs a 'low' op rounds, where not all: a bias is added as it is.
local rounded = { linear = 2 }

local dtypes = { off = false, fp16 = 'f16', bf16 = 'bf16' }
local active = false -- the 16-bit dtype inside of M.run

local function is_mixable(type) return type.short or type.name == 'f32' end

-- x in another dtype, on the tape; x itself where it is no float32 or 16-bit tensor, or has that dtype.
local function cast(x, dtype)
  if not tensor.is_tensor(x) or x.type.name == dtype or not is_mixable(x.type) then return x end
  return tensor.Tensor.cast(x, dtype)
end
M.cast = cast

-- Runs fn(...) with products in fp16 or bf16, or with 'off' (or nil) in what comes, also inside of another autocast. Returns what it returns.
function M.run(setting, fn, ...)
  local dtype = dtypes[setting or 'off']
  if dtype == nil then lib.raise(("autocast: expected 'fp16', 'bf16' or 'off', got '%s'"):format(tostring(setting))) end
  local was = active
  active = dtype
  local function finish(ok, ...)
    active = was
    if not ok then error((...), 0) end
    return ...
  end
  return finish(xpcall(fn, lib.remember, ...))
end

-- The 16-bit dtype that products are computed in here, or nil.
function M.dtype() return active or nil end

-- The dtype of an elementwise result of two types (entries of dtype.lua), nil where they do not mix.
function M.widest(a, b) return is_mixable(a) and is_mixable(b) and 'f32' or nil end

-- Makes tensors of a list that mix 16 bit and float32 float32, in place.
function M.unify(list)
  local is_mixed = false
  for i = 2, #list do is_mixed = is_mixed or list[i].type ~= list[1].type end
  for i = 1, is_mixed and #list or 0 do list[i] = cast(list[i], 'f32') end
end

-- An op's function with its policy: the record's own (record.autocast), or the table's.
function M.wrap(name, record, fn)
  local policy = record.autocast or policies[name]
  if not policy then return fn end
  local count = rounded[name] or record.inputs and #record.inputs or record.arity or 2
  local is_low = policy == 'low'
  return function(a, b, c, d, e, f, g, h)
    local dtype = is_low and active or not is_low and 'f32'
    if dtype then
      a = cast(a, dtype)
      if count >= 2 then b = cast(b, dtype) end
      if count >= 3 then c = cast(c, dtype) end
      if count >= 4 then d = cast(d, dtype) end
    end
    return fn(a, b, c, d, e, f, g, h)
  end
end

return M
