-- what was found on this machine, and what is not used and why
local ffi = require 'ffi'
pcall(ffi.cdef, 'long sysconf(int name);')

local PROCESSORS_ONLINE = 84

local function cpu()
  local model = 'unknown'
  for line in io.lines('/proc/cpuinfo') do model = line:match('^model name%s*:%s*(.*)$') or model end
  return ('%s, %d cores'):format(model, tonumber(ffi.C.sysconf(PROCESSORS_ONLINE)))
end

local function memory()
  local kilobytes = {}
  for line in io.lines('/proc/meminfo') do
    local name, size = line:match('^(%w+):%s*(%d+) kB')
    if name then kilobytes[name] = tonumber(size) end
  end
  return ('%.1f GB, %.1f GB of it available'):format(kilobytes.MemTotal / 1e6, (kilobytes.MemAvailable or kilobytes.MemFree) / 1e6)
end

-- The level in use, and why none above it.
local function level(lib)
  local used = ffi.string(lib.cpu.ty_level())
  local notes = {}
  for _, name in ipairs(lib.levels) do
    if name == used then break end
    notes[#notes + 1] = ('; not %s: %s'):format(name, lib.level_problem(name) or 'TYCHO_CPU=' .. os.getenv 'TYCHO_CPU')
  end
  return ('libtycho-%s.so, interface version %d%s'):format(used, lib.cpu.ty_version(), table.concat(notes))
end

local function blas(lib)
  local config = ffi.string(lib.cpu.ty_blas())
  local version, core = config:match('^(OpenBLAS [%d.]+)'), config:match('(%S+) MAX_THREADS')
  if not version then return config end
  return ('%s, core %s, %s'):format(version, core or 'unknown', config:find('USE_OPENMP', 1, true) and 'on the threads above'
    or 'with threads of its own that compete with those above: install libopenblas0-openmp')
end

-- Whether the system follows the advice to back large blocks with huge pages.
local function pages()
  local file = io.open '/sys/kernel/mm/transparent_hugepage/enabled'
  local setting = file and file:read('*a'):match('%[(%w+)%]')
  if file then file:close() end
  if setting == 'always' or setting == 'madvise' then return '2 MB pages for large blocks' end
  return ('small ones only: transparent huge pages are %s in this system'):format(setting == 'never' and 'switched off' or 'absent')
end

local function module_version(name, field)
  return function() return ('%s %s'):format(name, tostring(require(name)[field]):match('%d[%d.]*$') or 'of unknown version') end
end

-- A row that fails says why; returns 1 when one that is needed did.
return function(arguments)
  if arguments[1] == '--help' or arguments[1] == '-h' then
    return print 'usage: ./tycho doctor      exit status 1 where something that is needed is missing'
  end
  if arguments[1] then error(("doctor takes no arguments, got '%s'"):format(arguments[1]), 0) end
  local status = 0
  local function row(name, find)
    local ok, text = pcall(find)
    if not ok then status = 1 end
    print(('%-8s %s'):format(name, ok and text or 'MISSING: ' .. tostring(text)))
  end
  row('tycho', function()
    local tycho = require 'tycho'
    return ('%s in %s'):format(tycho.version, tycho.lib.root)
  end)
  row('luajit', function() return ('%s, JIT %s'):format(jit.version, jit.status() and 'on' or 'off') end)
  row('cpu', cpu)
  row('memory', memory)
  local function lib() return require 'tycho.lib' end
  row('float32', function() return level(lib()) end)
  row('float64', function() return ('libtycho64.so, interface version %d (gradient checks)'):format(lib().cpu64.ty_version()) end)
  row('threads', function() return ('%d (OpenMP)'):format(lib().cpu.ty_threads()) end)
  row('blas', function() return blas(lib()) end)
  row('pages', pages)
  row('jpeg', function()
    local decoder = require('tycho.io.image').decoder()
    return decoder ~= 'stb_image' and decoder or 'stb_image; the package libturbojpeg0 decodes three times as fast'
  end)
  row('cuda', function()
    local device = require 'tycho.device'
    local problem = device.problem 'cuda'
    return problem and 'not used: ' .. problem or device.describe 'cuda'
  end)
  row('kernels', function() return require('tycho.kernel.compile').describe() end)
  row('yaml', module_version('lyaml', '_VERSION'))
  row('files', module_version('lfs', '_VERSION'))
  row('json', module_version('dkjson', 'version'))
  return status
end
