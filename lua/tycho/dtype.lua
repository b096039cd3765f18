-- Element types: code (the C enum), bytes, C names and the library that computes with each.
local ffi = require 'ffi'

local types = {
  f32 = { code = 0, size = 4, pointer = ffi.typeof('float *'), lib = 'cpu', real = true },
  f64 = { code = 1, size = 8, pointer = ffi.typeof('double *'), lib = 'cpu64', real = true },
  i64 = { code = 2, size = 8, pointer = ffi.typeof('int64_t *'), lib = 'cpu' },
  i32 = { code = 3, size = 4, pointer = ffi.typeof('int32_t *'), lib = 'cpu' },
  u8 = { code = 4, size = 1, pointer = ffi.typeof('uint8_t *'), lib = 'cpu' },
}
local M = { by_code = {} }
for name, t in pairs(types) do
  t.name = name
  M[name] = t
  M.by_code[t.code] = t
end
return M
