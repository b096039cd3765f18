-- A kernel's function in the languages that it was given in: compiled for a device and a real type when first run there, then launched on pointers.
local ffi = require 'ffi'
local lib = require 'tycho.lib'
local compile = require 'tycho.kernel.compile'
local signature = require 'tycho.kernel.signature'

ffi.cdef [[
typedef union tycho_slot { const void *pointer; float f32; double f64; int64_t i64; int32_t i32; uint8_t u8; } tycho_slot;
void tycho_kernel(void **arguments);
]]

local Body = {}
Body.__index = Body
local M = {}

local THREADS = 256

-- given: {cuda =, c =, lua =, signature =, grid =, block =, per_thread = [elements of a CUDA thread, 1]}; caller: where it was written.
function M.new(given, caller)
  local text = given.cuda or given.c or given.signature
  if type(text) ~= 'string' then
    lib.raise('kernel: expected cuda = [[...]] or c = [[...]], or lua = function(y, x, n) with signature = '
      .. "'void NAME(real *y, const real *x, int64_t n)'")
  end
  local self = setmetatable({ cuda = given.cuda, c = given.c, lua = given.lua, grid = given.grid, block = given.block,
    per_thread = given.per_thread or 1, signature = signature.parse(text), places = {}, loaded = {} }, Body)
  self.name = self.signature.name
  for _, language in ipairs { 'cuda', 'c' } do
    if given[language] then self.places[language] = signature.place(given[language], caller) or { line = 1 } end
  end
  if given.cuda and given.c then
    local c = signature.parse(given.c)
    local same = c.name == self.name and #c.all == #self.signature.all
    for i, p in ipairs(same and c.all or {}) do
      local q = self.signature.all[i]
      same = same and p.name == q.name and p.type == q.type and p.pointer == q.pointer and p.output == q.output
    end
    if not same then lib.raise(('kernel %s: its CUDA C and its C have different names or parameters'):format(self.name)) end
  end
  return self
end

-- Compiles the CUDA C for an architecture that need not be here.
function Body:check(architecture)
  if not self.cuda then return end
  for _, real in ipairs { 'float', 'double' } do compile.cuda(self, real, architecture, function() end) end
end

-- ---- loading: a function of (slots, pointers to them, grid, block) ----

local function load_c(self, real)
  return compile.c(self, real, function(path)
    local object = ffi.load(path:find '/' and path or './' .. path)
    local run = object.tycho_kernel
    return function(_, pointers) return object and run(pointers) end
  end)
end

local function load_on(device, self, real)
  local library, kernel = device.float, ffi.new 'void *[1]'
  local host = device.name == 'cuda-host'
  local function load(path)
    local code = path
    if not host then
      local file = assert(io.open(path, 'rb'))
      code = file:read '*a'
      file:close()
    end
    lib.check(library.ty_kernel_load(kernel, self.name, code), library)
  end
  if host then compile.host(self, real, load) else compile.cuda(self, real, library.ty_architecture(), load) end
  return function(_, pointers, grid, block)
    lib.check(library.ty_kernel_launch(self.name, kernel[0], grid, block, pointers, #self.signature.all), library)
  end
end

local function load(self, device, real)
  if device.name ~= 'cpu' then
    if not self.cuda then
      lib.raise(('kernel %s: it has no body for %s; give cuda = [[...]], or move its tensors with :cpu()'):format(self.name, device.name))
    end
    return load_on(device, self, real)
  end
  if self.c and (compile.has_cc() or not self.lua) then return load_c(self, real) end
  if not self.lua then
    lib.raise(('kernel %s: it has no body for the CPU; give c = [[...]] or lua = function(...)'):format(self.name))
  end
  return false
end

-- ---- running ----

local function three(value, name)
  local list = type(value) == 'number' and { value } or value
  local sizes = ffi.new('int32_t[3]', 1)
  sizes[0], sizes[1], sizes[2] = list[1], list[2] or 1, list[3] or 1
  for i = 0, 2 do
    if sizes[i] < 1 then lib.raise(('kernel %s: sizes of grid and block must be 1 or more, got %d'):format(name, sizes[i])) end
  end
  return sizes
end

local function given_or(value, values, default)
  if type(value) == 'function' then return value(values) end
  return value or default
end

-- Runs on device over values: by name the tensors of all pointers and the numbers; real: the dtype of the real ones. n: elements of the first output.
function Body:run(device, real, values)
  local first = values[self.signature.outputs[1].name]
  local n = first:numel()
  if n == 0 then return end
  local key = device.name .. real.name
  local run = self.loaded[key]
  if run == nil then
    run = load(self, device, real.name == 'f64' and 'double' or 'float')
    self.loaded[key] = run
  end
  local all = self.signature.all
  if not run then
    local arguments = {}
    for i, p in ipairs(all) do
      arguments[i] = p.pointer and values[p.name]:ptr() or p.name == 'n' and n or values[p.name]
    end
    return self.lua(unpack(arguments, 1, #all))
  end
  local slots, pointers = ffi.new('tycho_slot[?]', #all), ffi.new('void *[?]', #all)
  for i, p in ipairs(all) do
    local field = p.pointer and 'pointer' or signature.types[p.type].field or real.name
    slots[i - 1][field] = p.pointer and values[p.name].c.data or p.name == 'n' and n or values[p.name]
    pointers[i - 1] = slots + (i - 1)
  end
  if device.name == 'cpu' then return run(slots, pointers) end
  local block = three(given_or(self.block, values, THREADS), self.name)
  local threads = block[0] * block[1] * block[2] * self.per_thread
  run(slots, pointers, three(given_or(self.grid, values, math.ceil(n / threads)), self.name), block)
end

return M
