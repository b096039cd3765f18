-- what was found on this machine, and what is not used and why
local ffi = require 'ffi'

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
  return ('%s (%s)'):format(model, #found > 0 and table.concat(found, ', ') or 'no AVX2')
end

return function()
  local tycho = require 'tycho'
  local lib = tycho.lib
  local rows = {
    { 'tycho', ('%s in %s'):format(tycho.version, lib.root) },
    { 'luajit', ('%s, JIT %s'):format(jit.version, jit.status() and 'on' or 'off') },
    { 'cpu', cpu() },
    { 'threads', tostring(tycho.threads()) },
    { 'float32', ('libtycho.so, interface version %d'):format(lib.cpu.ty_version()) },
    { 'float64', ('libtycho64.so, interface version %d (gradient checks)'):format(lib.cpu64.ty_version()) },
    { 'blas', ffi.string(lib.cpu.ty_blas()) },
    { 'memory', ('%.1f GB, the limit of all tensors together'):format(tycho.memory().limit / 1e9) },
    { 'cuda', 'not used: this version computes on the CPU only' },
  }
  for _, row in ipairs(rows) do print(('%-8s %s'):format(row[1], row[2])) end
end
