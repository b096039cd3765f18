-- The only file that knows the FFI's declarations: loads the libraries, and turns a status into a Lua error at the user's line.
require 'tycho.luajit'
local ffi = require 'ffi'
local blas = require 'tycho.blas'
local M = {}

M.root = package.loaded['tycho.root'] or debug.getinfo(1, 'S').source:match('^@(.*)/lua/tycho/lib%.lua$') or '.'
local build = os.getenv('TYCHO_BUILD') or M.root .. '/build'

-- ---- declarations ----

local function read(path)
  local file = io.open(path, 'r')
  if not file then error(('cannot read %s: run make in %s first'):format(path, M.root), 0) end
  local text = file:read('*a')
  file:close()
  return text
end

-- Rows of map.def: list of {name=, arity=, forward=, da=, db=}, the last three as C expressions.
M.rows = {}
local declarations = {}
for line in read(M.root .. '/csrc/map.def'):gmatch('[^\n]+') do
  local arity, name, rest = line:match('^%s*MAP([12])%(%s*([%w_]+)%s*,(.*)%)')
  if arity then
    local row = { name = name, arity = tonumber(arity) }
    local pieces = {}
    local depth, start = 0, 1
    for i = 1, #rest do
      local c = rest:sub(i, i)
      if c == '(' then depth = depth + 1 elseif c == ')' then depth = depth - 1 end
      if depth < 0 then rest = rest:sub(1, i - 1) break end
      if c == ',' and depth == 0 then
        pieces[#pieces + 1] = rest:sub(start, i - 1)
        start = i + 1
      end
    end
    pieces[#pieces + 1] = rest:sub(start)
    for i, key in ipairs { 'forward', 'da', 'db' } do row[key] = pieces[i] and pieces[i]:match('^%s*(.-)%s*$') end
    M.rows[#M.rows + 1] = row
    if arity == '1' then
      declarations[#declarations + 1] = ('int ty_%s(ty_tensor *y, const ty_tensor *x);'):format(name)
      declarations[#declarations + 1] =
        ('int ty_%s_back(ty_tensor *dx, const ty_tensor *dy, const ty_tensor *x, const ty_tensor *y);'):format(name)
    else
      declarations[#declarations + 1] = ('int ty_%s(ty_tensor *y, const ty_tensor *a, const ty_tensor *b);'):format(name)
      for _, side in ipairs { 'a', 'b' } do
        declarations[#declarations + 1] = ('int ty_%s_back_%s(ty_tensor *d, const ty_tensor *dy, const ty_tensor *a, '
          .. 'const ty_tensor *b, const ty_tensor *y);'):format(name, side)
      end
    end
  end
end
ffi.cdef((read(M.root .. '/csrc/tycho.h'):gsub('^#[^\n]*', ''):gsub('\n#[^\n]*', '\n')))
ffi.cdef(table.concat(declarations, '\n'))

-- ---- libraries: each loaded when first named; M.cpu (float32) and M.cpu64 (float64) are the CPU's ----

local version = 9
local function path_of(name) return ('%s/%s.so'):format(build, name) end
M.path_of = path_of

-- The library build/NAME.so, which `make target` builds. Raises when it cannot be loaded or is of another version.
function M.load(name, target)
  local ok, lib = pcall(blas.loading, ffi.load, path_of(name))
  if not ok then error(('cannot load %s: %s; run make %s in %s'):format(path_of(name), tostring(lib), target or 'all', M.root), 0) end
  if lib.ty_version() ~= version then
    error(('%s has version %d, the Lua side expects %d: run make %s in %s'):format(path_of(name), lib.ty_version(), version, target or 'clean all',
      M.root), 0)
  end
  return lib
end

-- The same for a library beside the float one: its ops end early at the interrupts that that one catches.
function M.load_beside(name, target)
  local lib = M.load(name, target)
  lib.ty_unwanted = M.cpu.ty_unwanted
  return lib
end

-- Instruction sets that the float library may be compiled for, the best first.
M.levels = { 'avx512', 'avx2', 'plain' }

-- Why a level cannot be used here, or nil.
function M.level_problem(name)
  local lacks = M.load('libtycho-plain').ty_level_lacks(name)
  if lacks ~= nil then return ('this machine has no %s'):format(ffi.string(lacks)) end
  local file = io.open(path_of('libtycho-' .. name), 'r')
  if not file then return ('%s was not built'):format(path_of('libtycho-' .. name)) end
  file:close()
end

-- The float library of a level. Raises when the machine does not run it.
function M.level(name)
  local known = false
  for _, level in ipairs(M.levels) do known = known or level == name end
  if not known then error(("TYCHO_CPU must be one of %s, got '%s'"):format(table.concat(M.levels, ', '), name), 0) end
  local problem = M.level_problem(name)
  if problem then error(('TYCHO_CPU=%s: %s'):format(name, problem), 0) end
  return M.load('libtycho-' .. name)
end

local function choose_level()
  local wanted = os.getenv 'TYCHO_CPU'
  if wanted and wanted ~= '' then return M.level(wanted) end
  for _, name in ipairs(M.levels) do
    if not M.level_problem(name) then return M.level(name) end
  end
end

-- OpenMP takes any OMP_NUM_THREADS; more threads than cores would wait for each other.
local function check_threads(lib)
  if lib.ty_set_threads(lib.ty_threads()) ~= 0 then
    error(('OMP_NUM_THREADS=%s: %s'):format(tostring(os.getenv 'OMP_NUM_THREADS'), ffi.string(lib.ty_error())), 0)
  end
  return lib
end

-- A device: its name, its code in tycho.h, its libraries, the bytes that its tensors hold and may hold. The other devices are device.lua's.
M.unlimited = 2^50
local cpu = setmetatable({ name = 'cpu', code = 0, live = 0, swept = 0, limit = M.unlimited }, {
  __index = function(t, key)
    local lib
    if key == 'float' then lib = check_threads(choose_level()) elseif key == 'double' then lib = M.load_beside 'libtycho64' else return nil end
    rawset(t, key, lib)
    return lib
  end,
})
M.devices = { cpu = cpu }
M.device_of_code = { [0] = cpu } -- as a tensor's struct has it

setmetatable(M, {
  __index = function(_, key)
    if key == 'cpu' then return cpu.float elseif key == 'cpu64' then return cpu.double end
  end,
})

-- ---- errors ----

local framework = M.root .. '/lua/tycho/'

-- 'file:line' of the innermost line outside lua/tycho, or nil.
function M.caller()
  for level = 2, 60 do
    local info = debug.getinfo(level, 'Sl')
    if not info then break end
    local source = info.source:sub(1, 1) == '@' and info.source:sub(2)
    if info.currentline > 0 and not (source and source:sub(1, #framework) == framework) then
      return ('%s:%d'):format(info.short_src, info.currentline)
    end
  end
end

-- The device (an entry of M.devices) whose work is recorded for a graph and not done: graph.lua. False at all other times.
M.capturing = false

-- Raises that what is asked for cannot be had inside a captured step. what: 'waits for the device', or what it does else; instead: what to do.
function M.refuse_captured(what, instead)
  local called
  for level = 3, 60 do
    local info = debug.getinfo(level, 'Sl')
    if not info then break end
    if info.currentline > 0 and info.source:sub(2, #framework + 1) ~= framework then
      called = debug.getinfo(level - 1, 'nS')
      break
    end
  end
  local name = called and called.what ~= 'C' and called.name -- a tail call leaves none
  M.raise(('%s inside a captured step; %s, or go without graphs (capture=false in a training)'):format(
    name and ('%s() %s'):format(name, what) or 'something ' .. what, instead))
end

-- Raises message at that line, the line of the person who can mend it.
function M.raise(message)
  local where = M.caller()
  error(where and ('%s: %s'):format(where, message) or message, 0)
end

-- Raises for what cannot be called. op: whose argument it is.
function M.check_callable(op, fn)
  local meta = type(fn) ~= 'function' and getmetatable(fn)
  if type(fn) == 'function' or type(meta) == 'table' and meta.__call then return end
  M.raise(('%s: expected a function, got %s'):format(op, type(fn)))
end

M.traceback = debug.traceback -- the prompt sets its own

-- Handler for xpcall where an error is passed on: remembers where it was first raised, because rethrowing loses that.
function M.remember(message)
  if not (M.trace and M.trace.message == message) then M.trace = { message = message, text = M.traceback(message, 2) } end
  return message
end

-- ---- interrupts ----

local interrupt_mode
local interrupt_modes = { default = 0, raise = 1, flag = 2, hold = 3 } -- in tycho.h

-- mode 'raise': Ctrl-C raises 'interrupted' in the next op or write (the prompt); 'flag': M.interrupted() tells of Ctrl-C, SIGTERM and a closed
-- terminal (training loops), and a second one ends the process; 'hold': the same, but a second one waits as well (while files are saved); nil: the
-- system's default, the process ends. Returns the mode before.
function M.on_interrupt(mode)
  local before = interrupt_mode
  interrupt_mode = mode
  M.cpu.ty_catch_interrupts(interrupt_modes[mode or 'default'])
  return before
end
function M.interrupted() return M.cpu.ty_interrupted() ~= 0 end
local function check_interrupt()
  if interrupt_mode == 'raise' and M.cpu.ty_interrupted() ~= 0 then error('interrupted', 0) end
end
M.check_interrupt = check_interrupt

-- status: what a C function returned; lib: the library that it came from (default M.cpu). An op that Ctrl-C has cut short says nothing itself.
function M.check(status, lib)
  if status ~= 0 then M.raise(ffi.string((lib or M.cpu).ty_error())) end
  check_interrupt()
end

return M
