-- Compiles the text of a kernel: CUDA C by NVRTC for a GPU or by a C++ compiler over kernels/host/ for the CPU, C by cc. What was compiled once is
-- kept (tycho.cache) under a hash of text, architecture, compiler and version.
local ffi = require 'ffi'
local lfs = require 'lfs'
local cache = require 'tycho.cache'
local lib = require 'tycho.lib'
local device = require 'tycho.device'
local file = require 'tycho.io.file' -- declares getpid, too
local hash = require 'tycho.hash'
local signature = require 'tycho.kernel.signature'

local M = {}

-- ---- messages ----

-- Raises what a compiler said. Its lines 'PATH:LINE: error: ...' and 'PATH(LINE): error: ...' speak of Lua files, by the #line directives.
local function refuse(name, log)
  local errors = {}
  for line in log:gmatch '[^\n]+' do
    local path, number, text = line:match '^(.-):(%d+):[%d:]* f?a?t?a?l? ?error: (.*)$'
    if not path then path, number, text = line:match '^(.-)%((%d+)%): [%a ]*error: (.*)$' end
    if not path then path, number, text = line:match '^(.-):(%d+): (undefined reference to .*)$' end
    if path then errors[#errors + 1] = ('%s:%s: kernel %s: %s'):format(path, number, name, (text:gsub(' %[%-Werror=[%w-]+%]$', ''))) end
  end
  error(errors[1] and table.concat(errors, '\n') or ('kernel %s: the compiler failed: %s'):format(name, log), 0)
end

-- ---- what was compiled once ----

-- fn(path) of what make(path) writes, made only where no earlier process has. Without a folder that can be written to it lives as long as fn runs.
local function cached(key, ending, make, fn)
  local folder = cache()
  local path = folder and ('%s/%s.%s'):format(folder, hash((key:gsub('#line[^\n]*', ''))), ending)
  if path and lfs.attributes(path, 'mode') == 'file' then return fn(path) end
  local temporary = os.tmpname()
  os.remove(temporary)
  if path then
    temporary = ('%s.%d.tmp'):format(path, ffi.C.getpid())
    local out = io.open(temporary, 'wb')
    if out then out:close() else path, temporary = nil, os.tmpname() end
  end
  local ok, result = pcall(make, temporary)
  if ok and path then ok, result = os.rename(temporary, path) end
  if ok then ok, result = pcall(fn, path or temporary) end
  os.remove(temporary)
  if not ok then error(result, 0) end
  return result
end

local function read(path)
  local handle = assert(io.open(path, 'rb'))
  local text = handle:read '*a'
  handle:close()
  return text
end

-- ---- CUDA C for a GPU ----

ffi.cdef [[
typedef struct tycho_nvrtc *tycho_nvrtc;
int nvrtcGetNumSupportedArchs(int *count);
int nvrtcGetSupportedArchs(int *list);
int nvrtcCreateProgram(tycho_nvrtc *program, const char *text, const char *name, int headers, const char *const *contents, const char *const *names);
int nvrtcDestroyProgram(tycho_nvrtc *program);
int nvrtcCompileProgram(tycho_nvrtc program, int count, const char *const *options);
int nvrtcGetCUBINSize(tycho_nvrtc program, size_t *size);
int nvrtcGetCUBIN(tycho_nvrtc program, char *code);
int nvrtcGetProgramLogSize(tycho_nvrtc program, size_t *size);
int nvrtcGetProgramLog(tycho_nvrtc program, char *log);
const char *nvrtcGetErrorString(int status);
]]

-- NVRTC has no C headers.
local integers = [[
typedef signed char int8_t; typedef unsigned char uint8_t; typedef int int32_t; typedef unsigned int uint32_t;
typedef long long int64_t; typedef unsigned long long uint64_t, uintptr_t;
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fffffff)
]]
local function block() return read(lib.root .. '/kernels/block.h') end

local nvrtc, nvrtc_folder
local function find_nvrtc(name)
  if nvrtc then return nvrtc end
  nvrtc, nvrtc_folder = device.nvrtc()
  if nvrtc then return nvrtc end
  lib.raise(('kernel %s: NVRTC (libnvrtc.so.13) was not found; install it, or write its folder into TYCHO_CUDA_PATH'):format(name))
end

local function check_architecture(n, name, architecture)
  local count = ffi.new 'int[1]'
  n.nvrtcGetNumSupportedArchs(count)
  local list = ffi.new('int[?]', count[0])
  n.nvrtcGetSupportedArchs(list)
  for i = 0, count[0] - 1 do
    if list[i] == architecture then return end
  end
  lib.raise(('kernel %s: this NVRTC compiles for sm_%d to sm_%d, not for sm_%d; install one that belongs to the GPU, or use another GPU'):format(name,
    list[0], list[count[0] - 1], architecture))
end

-- A string that a pair of NVRTC's functions gives.
local function get(n, program, size_of, of)
  local size = ffi.new 'size_t[1]'
  n[size_of](program, size)
  local text = ffi.new('char[?]', size[0] + 1)
  n[of](program, text)
  return ffi.string(text, size[0])
end

-- fn(path of a cubin) of body's CUDA C, with real as a C type, for an architecture such as 90.
function M.cuda(body, real, architecture, fn)
  local n, version = find_nvrtc(body.name), ffi.new 'int[2]'
  n.nvrtcVersion(version, version + 1)
  check_architecture(n, body.name, architecture)
  local text = ('%stypedef %s real;\n%s%s'):format(integers, real, block(), signature.declared(body, 'cuda'))
  local key = ('nvrtc %d.%d sm_%d\n%s'):format(version[0], version[1], architecture, text)
  return cached(key, 'cubin', function(path)
    local options = { ('--gpu-architecture=sm_%d'):format(architecture), '--std=c++17' }
    if nvrtc_folder then options[3] = ('--include-path=%s/../include'):format(nvrtc_folder) end
    local program, list = ffi.new 'tycho_nvrtc[1]', ffi.new('const char *[?]', #options)
    for i, option in ipairs(options) do list[i - 1] = option end
    n.nvrtcCreateProgram(program, text, body.name, 0, nil, nil)
    local status = n.nvrtcCompileProgram(program[0], #options, list)
    local result = status == 0 and get(n, program[0], 'nvrtcGetCUBINSize', 'nvrtcGetCUBIN')
      or get(n, program[0], 'nvrtcGetProgramLogSize', 'nvrtcGetProgramLog'):gsub('%z', '')
    n.nvrtcDestroyProgram(program)
    if status ~= 0 then refuse(body.name, result ~= '' and result or ffi.string(n.nvrtcGetErrorString(status))) end
    file.write(path, result)
  end, fn)
end

-- ---- shared objects ----

local function quoted(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

local function run(command)
  local pipe = io.popen(('LC_ALL=C %s 2>&1; echo " $?"'):format(command))
  local out, status = pipe:read('*a'):match '^(.*) (%d+)\n$'
  pipe:close()
  return tonumber(status), out
end

local versions = {} -- of compilers, false where there is none

-- What a compiler says of itself, or nil.
local function version_of(compiler)
  if versions[compiler] == nil then
    local status, out = run(compiler .. ' -dumpfullversion -dumpmachine')
    versions[compiler] = status == 0 and compiler .. ' ' .. out
  end
  return versions[compiler] or nil
end

local function compiler_of(variable, default)
  local set = os.getenv(variable)
  return set and set ~= '' and set or default
end

-- Whether C bodies can be compiled here.
function M.has_cc() return version_of(compiler_of('CC', 'cc')) ~= nil end

-- What there is to compile with, in words.
function M.describe()
  local version = ffi.new 'int[2]'
  local cc, n = version_of(compiler_of('CC', 'cc')), device.nvrtc()
  if n then n.nvrtcVersion(version, version + 1) end
  return ('%s; %s'):format(cc and 'C by ' .. cc:gsub('\n.*', '') or 'no C: install gcc',
    n and ('CUDA C by NVRTC %d.%d'):format(version[0], version[1]) or 'no CUDA C: libnvrtc.so.13 was not found')
end

-- The function tycho_kernel of a shared object takes pointers to the values of all parameters.
local function entry(body)
  local values = {}
  for i, p in ipairs(body.signature.all) do
    values[i] = ('*(%s)a[%d]'):format((p.text:gsub('%f[%w_]' .. p.name .. '$', '*')), i - 1)
  end
  return ('void tycho_kernel(void **a) { %s(%s); }\n'):format(body.name, table.concat(values, ', '))
end

-- A function that nobody defines is found by the linker: loading the object, or the first call, would end the process. One named as a function of
-- libc is the object's own (-Bsymbolic). Of DWARF 5 the linker does not read the #line directives' files.
local usual = '-O3 -gdwarf-4 -fPIC -shared -Wl,-z,defs -Wl,-Bsymbolic -fopenmp -fno-math-errno -ffp-contract=fast'

local function object(body, compiler, flags, text, fn)
  local version = version_of(compiler)
  if not version then
    lib.raise(("kernel %s: there is no compiler '%s' on this machine; install gcc and g++"):format(body.name, compiler))
  end
  return cached(('%s\n%s %s\n%s'):format(version, usual, flags, text), 'so', function(path)
    local source = path .. (flags:find('-x c++', 1, true) and '.cpp' or '.c')
    file.write(source, text)
    local status, log = run(('%s %s -o %s %s'):format(compiler, usual, quoted(path), flags:gsub('SOURCE', function() return quoted(source) end)))
    os.remove(source)
    if status ~= 0 then refuse(body.name, log) end
  end, fn)
end

local of_level = { avx512 = '-march=x86-64-v4 ', avx2 = '-march=x86-64-v3 ', plain = '' }

-- fn(path of a shared object) of body's C.
function M.c(body, real, fn)
  local head = '#include <tgmath.h>\n#undef I\n#include <stdint.h>\n#include <string.h>\n'
  local text = ('%stypedef %s real;\n%s%s'):format(head, real, signature.declared(body, 'c'), entry(body))
  local level = of_level[ffi.string(lib.cpu.ty_level())]
  return object(body, compiler_of('CC', 'cc'), level .. '-std=gnu11 -Werror=implicit-function-declaration -x c SOURCE -lm', text, fn)
end

-- fn(path of a shared object) of body's CUDA C, for the device cuda-host.
function M.host(body, real, fn)
  local half = read(lib.root .. '/csrc/half.h')
  local shim = read(lib.root .. '/kernels/host/cuda.h'):gsub('#include "[^"\n]*half%.h"[^\n]*', function() return half end)
  local text = ('%s\n#include <math.h>\ntypedef %s real;\n%s%sextern "C" %s'):format(shim, real, block(), signature.declared(body, 'cuda'),
    entry(body))
  return object(body, compiler_of('CXX', 'c++'), ('-std=gnu++17 -w -U_FORTIFY_SOURCE -x c++ SOURCE -x none %s'):format(
    quoted(lib.path_of 'libtycho_cuda_host')), text, fn)
end

return M
