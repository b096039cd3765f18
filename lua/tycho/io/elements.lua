-- Arrays in files: every element type that the formats know, made into tensors of f32, f64, i64, i32 or u8.
-- Lossless: f16 and bf16 become f32, bool u8, i8, i16 and u16 i32, u32 and u64 i64 (larger values are refused).
-- What a tensor can use as it stands (aligned, in a file of 1 MiB or more) stays in the mapped file: no copy, and changes stay in memory.
local ffi = require 'ffi'
local dtypes = require 'tycho.dtype'
local tensor = require 'tycho.tensor'
local file = require 'tycho.io.file'
local fail = file.fail

local M = {}

local MOST = 2^44 -- elements
local LEAST_MAPPED = 2^20 -- bytes of a file; of smaller ones, thousands may be read, and the system allows only so many mappings

-- Floats are moved as bits: a NaN with a payload, read through the FFI as a number, could pass for another Lua type.
local halves -- float bits of every half
local function half(bits)
  if not halves then
    local values = ffi.new('float[65536]')
    halves = ffi.new('uint32_t[65536]')
    for i = 0, 65535 do values[i] = dtypes.half(i) end
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
for name, k in pairs(kinds) do
  M[name] = { name = name, size = k[1], dtype = k[2], result_size = dtypes[k[2]].size, from = ffi.typeof(k[3] .. ' *'),
    to = ffi.typeof(k[4] .. ' *'), convert = k[5], plain = k[5] == same and k[3] == k[4] }
end

-- Number of elements of shape (Lua list of sizes): refuses what is not a list of at most 6 whole sizes, and more than MOST of them, empty sizes
-- left out: the bytes, and the strides beside an empty size, stay exact.
function M.count(shape, where)
  if #shape > 6 then fail(where, 'at most 6 dims are supported, found %d', #shape) end
  local count, empty = 1, false
  for i = 1, #shape do
    local size = shape[i]
    if type(size) ~= 'number' or size < 0 or size ~= math.floor(size) then
      fail(where, 'expected sizes that are whole numbers >= 0, found %s', tostring(size))
    end
    count, empty = count * math.max(size, 1), empty or size == 0
  end
  if count > MOST then fail(where, 'an array of shape (%s) is not plausible', table.concat(shape, ', ')) end
  return empty and 0 or count
end

function M.dense_stride(shape)
  local stride, step = {}, 1
  for i = #shape, 1, -1 do stride[i], step = step, step * shape[i] end
  return stride
end

local function is_aligned(bytes, size) return tonumber(ffi.cast('uintptr_t', bytes) % size) == 0 end

local function convert_all(to, from, count, convert)
  for i = 0, count - 1 do to[i] = convert(from[i]) end
end

-- A storage of the count elements of a kind (M.f32, ...) at bytes (uint8_t *; little-endian), in the kind's tensor dtype. mapping: the file
-- that bytes lie in, nil when they will not last. The caller has checked that all of them lie inside the file.
function M.storage(bytes, kind, count, mapping, where)
  if kind.plain and mapping and mapping.size >= LEAST_MAPPED and is_aligned(bytes, kind.size) then return mapping:storage(bytes) end
  local storage = tensor.empty({ count }, kind.dtype).storage
  if kind.plain then
    ffi.copy(storage.block, bytes, count * kind.size)
  else
    local ok, why = pcall(convert_all, ffi.cast(kind.to, storage.block), ffi.cast(kind.from, bytes), count, kind.convert)
    if why == too_large then fail(where, 'values of 2^63 and more do not fit int64') end
    if not ok then error(why, 0) end
  end
  return storage
end

local in_file = setmetatable({}, { __mode = 'k' })

-- Tensor over a storage that M.storage made, from element offset on; stride in elements, row-major when nil.
function M.view(storage, kind, offset, shape, stride)
  local t = tensor.from_storage(storage, offset * kind.result_size, shape, kind.dtype, stride)
  in_file[t] = kind.name
  return t
end

-- Name of the element type that t had in the file that it was read from, t.dtype for others.
function M.dtype_in_file(t) return in_file[t] or t.dtype end

-- Tensor of the elements at bytes; see M.storage. big: big-endian ones.
function M.read(bytes, kind, shape, stride, mapping, where, big)
  local count = M.count(shape, where)
  if not big then return M.view(M.storage(bytes, kind, count, mapping, where), kind, 0, shape, stride) end
  return file.with_block(count * kind.size, function(copy)
    local last = kind.size - 1
    for i = 0, count * kind.size - 1, kind.size do
      for j = 0, last do copy[i + j] = bytes[i + last - j] end
    end
    return M.read(copy, kind, shape, stride, nil, where)
  end)
end

function M.bytes(x) return x:numel() * x.type.size end

return M
