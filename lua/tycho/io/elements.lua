-- Arrays in files: every element type that the formats know, made into dense tensors of f32, f64, i64, i32 or u8.
-- Lossless: f16 and bf16 become f32, bool u8, i8, i16 and u16 i32, u32 and u64 i64 (larger values are refused).
local ffi = require 'ffi'
local tensor = require 'tycho.tensor'
local file = require 'tycho.io.file'
local fail = file.fail

local M = {}

-- Floats are moved as bits: a NaN with a payload, read through the FFI as a number, could pass for another Lua type.
local halves -- float bits of every half
local function half(bits)
  if not halves then
    local values = ffi.new('float[65536]')
    halves = ffi.new('uint32_t[65536]')
    for i = 0, 65535 do
      local exponent, fraction = math.floor(i / 1024) % 32, i % 1024
      local value
      if exponent == 0 then
        value = fraction * 2^-24
      elseif exponent == 31 then
        value = fraction == 0 and math.huge or 0 / 0
      else
        value = (1024 + fraction) * 2^(exponent - 25)
      end
      values[i] = i < 32768 and value or -value
    end
    ffi.copy(halves, values, 4 * 65536)
  end
  return halves[bits]
end
local function brain(bits) return bits * 65536 end
local too_large = {}
local function signed(value)
  if value > 0x7fffffffffffffffULL then error(too_large) end
  return value
end
local function flag(value) return value ~= 0 and 1 or 0 end
local function same(value) return value end

-- name = { bytes, tensor dtype, C type in the file, C type in the tensor, conversion }
local kinds = {
  f64 = { 8, 'f64', 'int64_t', 'int64_t', same },
  f32 = { 4, 'f32', 'int32_t', 'int32_t', same },
  f16 = { 2, 'f32', 'uint16_t', 'uint32_t', half },
  bf16 = { 2, 'f32', 'uint16_t', 'uint32_t', brain },
  i64 = { 8, 'i64', 'int64_t', 'int64_t', same },
  i32 = { 4, 'i32', 'int32_t', 'int32_t', same },
  i16 = { 2, 'i32', 'int16_t', 'int32_t', same },
  i8 = { 1, 'i32', 'int8_t', 'int32_t', same },
  u64 = { 8, 'i64', 'uint64_t', 'int64_t', signed },
  u32 = { 4, 'i64', 'uint32_t', 'int64_t', same },
  u16 = { 2, 'i32', 'uint16_t', 'int32_t', same },
  u8 = { 1, 'u8', 'uint8_t', 'uint8_t', same },
  bool = { 1, 'u8', 'uint8_t', 'uint8_t', flag },
}
local result_bytes = { f64 = 8, f32 = 4, i64 = 8, i32 = 4, u8 = 1 }
for name, k in pairs(kinds) do
  M[name] = { name = name, size = k[1], dtype = k[2], result_size = result_bytes[k[2]], from = ffi.typeof(k[3] .. ' *'),
    to = ffi.typeof(k[4] .. ' *'), convert = k[5], plain = k[5] == same and k[3] == k[4] }
end

-- Number of elements of shape (Lua list of sizes): refuses what is not a list of at most 6 whole sizes, and a product that is not exact.
function M.count(shape, where)
  if #shape > 6 then fail(where, 'at most 6 dims are supported, found %d', #shape) end
  local count, empty = 1, false
  for i = 1, #shape do
    local size = shape[i]
    if type(size) ~= 'number' or size < 0 or size > 2^53 or size ~= math.floor(size) then
      fail(where, 'expected sizes that are whole numbers >= 0, found %s', tostring(size))
    end
    count, empty = count * size, empty or size == 0
  end
  if empty then return 0 end
  if count > 2^44 then fail(where, 'an array of %g elements is not plausible', count) end
  return count
end

function M.dense_stride(shape)
  local stride, step = {}, 1
  for i = #shape, 1, -1 do stride[i], step = step, step * shape[i] end
  return stride
end

local function copy_strided(to, from, shape, stride, convert)
  local n = #shape
  local inner, step = shape[n] or 1, stride[n] or 1
  local at, base, done, total = {}, 0, 0, 1
  for i = 1, n do at[i], total = 0, total * shape[i] end
  while done < total do
    for i = 0, inner - 1 do to[done + i] = convert(from[base + i * step]) end
    done = done + inner
    for i = n - 1, 1, -1 do
      at[i], base = at[i] + 1, base + stride[i]
      if at[i] < shape[i] then break end
      at[i], base = 0, base - shape[i] * stride[i]
    end
  end
end

-- Makes every NaN positive: those are safe to read as Lua numbers, whatever their payload.
local function tame(t)
  local p, count = ffi.cast('int32_t *', t:ptr()), t:numel()
  if t.dtype == 'f32' then
    for i = 0, count - 1 do
      local bits = p[i]
      if bits < 0 and bits > -0x800000 then p[i] = bits + 0x80000000 end
    end
  elseif t.dtype == 'f64' then
    for i = 1, 2 * count - 1, 2 do
      local high = p[i]
      if high < 0 and (high > -0x100000 or high == -0x100000 and p[i - 1] ~= 0) then p[i] = high + 0x80000000 end
    end
  end
  return t
end

-- Dense tensor of the elements at bytes (uint8_t*; little-endian, possibly unaligned) of a kind (M.f32, ...), with shape and
-- stride (in elements, nil = row-major). The caller has checked that all of them lie inside the file.
function M.read(bytes, kind, shape, stride, where)
  local t = tensor.empty(shape, kind.dtype)
  if kind.plain and not stride then
    ffi.copy(t:ptr(), bytes, t:numel() * kind.size)
  else
    local to, from = ffi.cast(kind.to, t:ptr()), ffi.cast(kind.from, bytes)
    local ok, why = pcall(copy_strided, to, from, shape, stride or M.dense_stride(shape), kind.convert)
    if why == too_large then fail(where, 'values of 2^63 and more do not fit int64') end
    if not ok then error(why, 0) end
  end
  return tame(t)
end

-- M.read of big-endian elements.
function M.read_swapped(bytes, kind, shape, stride, where)
  local size = M.count(shape, where) * kind.size
  return file.with_block(size, function(copy)
    local last = kind.size - 1
    for i = 0, size - 1, kind.size do
      for j = 0, last do copy[i + j] = bytes[i + last - j] end
    end
    return M.read(copy, kind, shape, stride, where)
  end)
end

-- x itself when its memory is row-major without gaps, else such a copy.
function M.dense(x)
  if x:is_contiguous() then return x end
  return tensor.empty(x.shape, x.dtype):copy_(x)
end

function M.bytes(x) return x:numel() * result_bytes[x.dtype] end

return M
