-- Element types: code (the C enum), bytes, C names and which of a device's libraries computes with each; read(p, i) is element i at p as a number.
-- f16 (IEEE's half) and bf16 are short: devices compute with them, the CPU converts them. An integer's least and most are what a number has.
local ffi = require 'ffi'

-- A negative NaN with a payload would pass for another Lua type (LuaJIT keeps its type tags in such patterns) and can crash the interpreter:
-- the high words of floats are looked at first, and every such NaN becomes the plain one.
local words = ffi.typeof('int32_t *')
local function read_f32(p, i)
  local word = ffi.cast(words, p)[i]
  if word < 0 and word > -0x800000 then return 0 / 0 end
  return p[i]
end
local function read_f64(p, i)
  local word = ffi.cast(words, p)[2 * i + 1]
  if word < 0 and word > -0x100000 then return 0 / 0 end
  return p[i]
end
-- The number that 16 bits mean as a half.
local function half(bits)
  local exponent, fraction = math.floor(bits / 1024) % 32, bits % 1024
  local value
  if exponent == 0 then value = fraction * 2^-24
  elseif exponent < 31 then value = (1024 + fraction) * 2^(exponent - 25)
  else value = fraction == 0 and math.huge or 0 / 0 end
  return bits < 32768 and value or -value
end
local function read_f16(p, i) return half(p[i]) end
local upper = ffi.new('uint32_t[1]')
local function read_bf16(p, i)
  upper[0] = p[i] * 65536
  return read_f32(ffi.cast('float *', upper), 0)
end
local function read_integer(p, i) return tonumber(p[i]) end

local types = {
  f32 = { code = 0, size = 4, pointer = ffi.typeof('float *'), library = 'float', real = true, read = read_f32 },
  f64 = { code = 1, size = 8, pointer = ffi.typeof('double *'), library = 'double', real = true, read = read_f64 },
  f16 = { code = 5, size = 2, pointer = ffi.typeof('uint16_t *'), library = 'float', real = true, short = true, read = read_f16 },
  bf16 = { code = 6, size = 2, pointer = ffi.typeof('uint16_t *'), library = 'float', real = true, short = true, read = read_bf16 },
  i64 = { code = 2, size = 8, pointer = ffi.typeof('int64_t *'), library = 'float', read = read_integer, least = -2^63, most = 2^63 - 2^10 },
  i32 = { code = 3, size = 4, pointer = ffi.typeof('int32_t *'), library = 'float', read = read_integer, least = -2^31, most = 2^31 - 1 },
  u8 = { code = 4, size = 1, pointer = ffi.typeof('uint8_t *'), library = 'float', read = read_integer, least = 0, most = 255 },
}
local M = { by_code = {}, half = half }
for name, t in pairs(types) do
  t.name = name
  M[name] = t
  M.by_code[t.code] = t
end
return M
