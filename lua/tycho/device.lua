-- Devices: finds and opens the libraries that compute elsewhere than in the CPU's memory, and says in one sentence why one cannot be used.
-- A tensor is where tensor.to or the last argument of tycho.empty puts it; ops compute where their arguments are.
local ffi = require 'ffi'
local lfs = require 'lfs'
local lib = require 'tycho.lib'
local storages = require 'tycho.storage'

local M = {}

ffi.cdef 'int nvrtcVersion(int *major, int *minor);'

-- cuda-host is the CUDA sources compiled for the CPU: slow, for tests of the kernels on machines without a GPU.
local known = {
  cuda = { code = 1, library = 'libtycho_cuda', absent = 'libtycho_cuda.so was not built: run make cuda on a machine with nvcc' },
  ['cuda-host'] = { code = 2, library = 'libtycho_cuda_host', absent = 'libtycho_cuda_host.so was not built: run make cuda-host' },
}

-- ---- NVIDIA's libraries ----

-- In the order in which they need each other.
local needed = { 'libcublasLt.so.13', 'libcublas.so.13', 'libcudnn.so.9' }

-- Folders of the wheels that python3, or the program in PYTHON, finds, if there is one; asked once, and only for what is nowhere else.
local wheels
local function wheel_folders()
  if wheels then return wheels end
  wheels = {}
  local pipe = io.popen [[${PYTHON:-python3} -c 'import nvidia; print(*nvidia.__path__, sep="\n")' 2>/dev/null </dev/null]]
  if not pipe then return wheels end
  for path in pipe:lines() do
    for _, part in ipairs { 'cu13', 'cublas', 'cudnn', 'cuda_nvrtc' } do wheels[#wheels + 1] = ('%s/%s/lib'):format(path, part) end
  end
  pipe:close()
  return wheels
end

local loaded = {} -- kept from the collector, which would unload them
local function load_named(name, path)
  local ok, library = pcall(ffi.load, path, true)
  loaded[name] = ok and library or nil
  return loaded[name]
end
local function load_from(folders, name)
  for _, folder in ipairs(folders) do
    local path = folder .. '/' .. name
    local library = lfs.attributes(path) and load_named(name, path)
    if library then return library, folder end
  end
end

-- One of NVIDIA's libraries, for all that is loaded later to see, and its folder unless the system found it; nil where there is none. Looks into the
-- folders of TYCHO_CUDA_PATH, the toolkit's, where the system looks, and into Python's wheels.
function M.nvidia(name)
  local folders = {}
  for folder in (os.getenv 'TYCHO_CUDA_PATH' or ''):gmatch '[^:]+' do folders[#folders + 1] = folder end
  folders[#folders + 1] = '/usr/local/cuda/lib64'
  local library, folder = load_from(folders, name)
  if not library then library = load_named(name, name) end
  if not library then library, folder = load_from(wheel_folders(), name) end
  return library, folder
end

-- NVRTC [opt], and its folder. The file of its own that it looks for where the system does, and nowhere else, is loaded with it.
function M.nvrtc()
  local library, folder = M.nvidia 'libnvrtc.so.13'
  if not library then return nil end
  local version = ffi.new 'int[2]'
  library.nvrtcVersion(version, version + 1)
  M.nvidia(('libnvrtc-builtins.so.%d.%d'):format(version[0], version[1]))
  return library, folder
end

-- The plugin is not told where they are; the system's loader takes for it what is loaded already. cuDNN asks for NVRTC, for kernels that it writes.
local function load_needed()
  M.nvrtc()
  for _, name in ipairs(needed) do M.nvidia(name) end
end

-- ---- opening ----

local problems = {} -- why a device cannot be used, by name

-- The library of a device, whether or not the device is here.
function M.library(name)
  local entry = known[name]
  if not lfs.attributes(lib.path_of(entry.library)) then error(entry.absent, 0) end
  if name == 'cuda' then load_needed() end
  local ok, library = pcall(lib.load_beside, entry.library, name)
  if ok then return library end
  local missing = library:match '(lib[%w_]+%.so[.%d]*): cannot open shared object file'
  error(missing and ('%s needs %s, which was not found; install it, or write its folder into TYCHO_CUDA_PATH'):format(entry.library, missing)
    or library, 0)
end

local function open(name)
  local entry, library = known[name], M.library(name)
  if library.ty_open() ~= 0 then error(ffi.string(library.ty_error()), 0) end
  local device = { name = name, code = entry.code, float = library, double = library, live = 0, swept = 0, limit = lib.unlimited }
  lib.devices[name], lib.device_of_code[entry.code] = device, device
  return device
end

-- Why a device cannot be used, in one sentence, or nil. Opens it when it can.
function M.problem(name)
  if lib.devices[name] then return nil end
  if not known[name] then return ("there is no device '%s'; expected cpu or cuda"):format(tostring(name)) end
  if not problems[name] then
    local ok, why = pcall(open, name)
    if not ok then problems[name] = why end
  end
  return problems[name]
end

-- The entry of a device in lib.devices. Raises when it cannot be used.
function M.open(name)
  local problem = M.problem(name)
  if problem then lib.raise(('device %s: %s'):format(tostring(name), problem)) end
  return lib.devices[name]
end

function M.is_name(name) return name == 'cpu' or known[name] ~= nil end

-- What was found, with versions.
function M.describe(name) return ffi.string(M.open(name).float.ty_device_text()) end

-- The device that a setting means, and for auto why it is not cuda. There is no way from cuda to cpu that was not asked for.
function M.choose(setting)
  local problem = M.problem(setting == 'auto' and 'cuda' or setting)
  if setting == 'auto' then return problem and 'cpu' or 'cuda', problem end
  if problem then error(('device=%s: %s'):format(setting, problem), 0) end
  return setting
end

-- The device that a setting means, with versions, and for auto why it is not cuda.
function M.text(setting)
  local name, why = M.choose(setting)
  return name == 'cpu' and name or ('%s: %s'):format(name, M.describe(name)), why
end

-- The same for a run's log.
function M.line(setting)
  local text, why = M.text(setting)
  return ('device: %s%s'):format(text, why and '; not cuda: ' .. why or '')
end

-- on: products and convolutions of float32 on a device may round their factors to TF32, for speed. Off at first; the CPU never does.
function M.set_tf32(name, on)
  local device = M.open(name)
  device.tf32 = on
  if name ~= 'cpu' then device.float.ty_set_tf32(on and 1 or 0) end
end

-- on: convolutions on a device are done by the fastest of cuDNN's engines, as tycho.conv_engines finds it, instead of the first that its heuristics
-- name. Off at first; what was chosen stays.
function M.set_cudnn_benchmark(name, on) M.open(name).cudnn_benchmark = name ~= 'cpu' and on end

-- Bytes that tensors on a device can still take, garbage being collected first.
function M.free_bytes(name)
  local library = M.open(name).float
  storages.collect()
  return tonumber(library.ty_free_bytes())
end

-- Waits for all work on a device.
function M.synchronize(name)
  local library = M.open(name).float
  if lib.capturing then lib.refuse_captured('waits for the device', 'wait after the step') end
  if name ~= 'cpu' then lib.check(library.ty_sync(), library) end
end

-- How often the host has waited for all work on a device, to read a number or because it was asked to.
function M.waits(name)
  local library = M.open(name).float
  return name ~= 'cpu' and tonumber(library.ty_waits()) or 0
end

return M
