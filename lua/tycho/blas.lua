-- Which of OpenBLAS's kernels are used: it chooses by the processor while it is loaded, or takes the name in OPENBLAS_CORETYPE.
local ffi = require 'ffi'
pcall(ffi.cdef, 'int setenv(const char *name, const char *value, int overwrite); int unsetenv(const char *name);')
local M = {}

-- The core to name, or nil where OpenBLAS's own choice is best. Zen 4 (family 25 with AVX-512) computes 512 bits in two halves: the AVX2 kernels
-- written for Zen are 8 % faster there than those of Cooper Lake, for which OpenBLAS 0.3.21 takes it. cpuinfo: text of /proc/cpuinfo.
function M.better_core(cpuinfo)
  local is_zen4 = cpuinfo:find('AuthenticAMD', 1, true) and cpuinfo:match 'cpu family%s*:%s*(%d+)' == '25' and cpuinfo:find(' avx512f ', 1, true)
  return is_zen4 and 'Zen' or nil
end

local function cpuinfo()
  local file = io.open('/proc/cpuinfo', 'r')
  if not file then return '' end
  local text = file:read(4096) -- the first core
  file:close()
  return text or ''
end

local known, better = false, nil -- this machine's, once it has been looked at

-- Returns load(...), a function that may load OpenBLAS. What the user has named stays, and programs started later see the environment as it was.
function M.loading(load, ...)
  if not known then known, better = true, M.better_core(cpuinfo()) end
  local core = not os.getenv 'OPENBLAS_CORETYPE' and better
  if not core then return load(...) end
  ffi.C.setenv('OPENBLAS_CORETYPE', core, 0)
  local ok, library = pcall(load, ...)
  ffi.C.unsetenv 'OPENBLAS_CORETYPE'
  return ok and library or error(library, 0)
end

return M
