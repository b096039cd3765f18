-- what was found on this machine, and what is not used and why
local ffi = require 'ffi'
pcall(ffi.cdef, 'long sysconf(int name);')

local PROCESSORS_ONLINE = 84

local function cpu()
  local model, flags = 'unknown', ''
  for line in io.lines('/proc/cpuinfo') do
    model = line:match('^model name%s*:%s*(.*)$') or model
    flags = line:match('^flags%s*:%s*(.*)$') or flags
  end
  local found = {}
  for _, flag in ipairs { 'avx2', 'fma', 'avx512f' } do
    if (' ' .. flags .. ' '):find(' ' .. flag .. ' ', 1, true) then found[#found + 1] = flag end
  end
  return ('%s, %d cores (%s)'):format(model, tonumber(ffi.C.sysconf(PROCESSORS_ONLINE)), #found > 0 and table.concat(found, ', ') or 'no AVX2')
end

local function memory()
  local kilobytes = {}
  for line in io.lines('/proc/meminfo') do
    local name, size = line:match('^(%w+):%s*(%d+) kB')
    if name then kilobytes[name] = tonumber(size) end
  end
  return ('%.1f GB, %.1f GB of it available'):format(kilobytes.MemTotal / 1e6, (kilobytes.MemAvailable or kilobytes.MemFree) / 1e6)
end

local function module_version(name, field)
  return function() return ('%s %s'):format(name, tostring(require(name)[field]):match('%d[%d.]*$') or 'of unknown version') end
end

-- A row that fails says why; returns 1 when one that is needed did.
return function()
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
  row('float32', function() return ('libtycho.so, interface version %d'):format(lib().cpu.ty_version()) end)
  row('float64', function() return ('libtycho64.so, interface version %d (gradient checks)'):format(lib().cpu64.ty_version()) end)
  row('threads', function() return tostring(lib().cpu.ty_threads()) end)
  row('blas', function() return ffi.string(lib().cpu.ty_blas()) end)
  row('cuda', function() return 'not used: this version computes on the CPU only' end)
  row('yaml', module_version('lyaml', '_VERSION'))
  row('files', module_version('lfs', '_VERSION'))
  row('json', module_version('dkjson', 'version'))
  return status
end
