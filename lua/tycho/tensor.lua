-- Tensor: a strided view of a storage. Creation, views' plumbing, access, conversion, in-place changes and printing.
-- Differentiable operations live in ops/; they appear here as methods by file name. Tensors count from 0.
local ffi = require 'ffi'
local lib = require 'tycho.lib'
local storages = require 'tycho.storage'
local dtypes = require 'tycho.dtype'

local Tensor = {} -- methods
local getters = {} -- computed fields
local M = { Tensor = Tensor }

local struct = ffi.typeof('ty_tensor')
local int64 = ffi.typeof('int64_t')
local raise = lib.raise

local absent = {}
local metatable = {}
local function lookup(t, key)
  local method = Tensor[key]
  if method ~= nil then return method end
  local getter = getters[key]
  if getter then return getter(t) end
  if type(key) == 'number' then return Tensor.select(t, 0, key) end
  if absent[key] then return nil end
  method = require('tycho.op').find(key)
  if method then Tensor[key] = method else absent[key] = true end
  return method
end
metatable.__index = lookup
for _, field in ipairs { 'node', 'grad', 'requires_grad', 'name' } do absent[field] = true end

function M.is_tensor(x) return getmetatable(x) == metatable end
local is_tensor = M.is_tensor

-- ---- making ----

local device_of_code = lib.device_of_code
-- The entry of a tensor's device in lib.devices.
local function home(t) return device_of_code[t.c.device] end

-- The fields of nil have room: adding them later would cost more than making the table.
local function wrap(c, storage, dtype)
  return setmetatable({ c = c, storage = storage, type = dtype, lib = device_of_code[c.device][dtype.library], node = nil, grad = nil,
    requires_grad = nil }, metatable)
end

local function dtype_of(name)
  local dtype = dtypes[name or 'f32']
  if not dtype or not dtype.code then raise(("dtype must be one of f32, f64, f16, bf16, i64, i32, u8, got '%s'"):format(tostring(name))) end
  return dtype
end

local LARGEST = 2^44 -- elements
-- The number of elements. Raises unless shape is a list of at most 6 whole numbers, each least (0 unless given) or more, and the product is one of
-- a tensor. op: whose argument it is.
function M.check_shape(op, shape, least)
  if type(shape) ~= 'table' or is_tensor(shape) then
    raise(('%s: expected a list of sizes such as {2, 3}, got %s'):format(op, is_tensor(shape) and 'a tensor' or type(shape)))
  end
  if #shape > 6 then raise(('%s: a tensor has at most 6 dims, got %d'):format(op, #shape)) end
  local count = 1
  for i = 1, #shape do
    local size = shape[i]
    if type(size) ~= 'number' or not (size >= (least or 0) and size <= LARGEST) or size ~= math.floor(size) then
      raise(('%s: sizes must be whole numbers >= 0, got {%s}'):format(op, table.concat(M.map(shape, tostring), ', ')))
    end
    count = count * size
  end
  if count > LARGEST then raise(('%s: a tensor of %g elements is too large'):format(op, count)) end
  return count
end

local function set_shape(op, c, shape)
  local count = M.check_shape(op, shape)
  c.ndim = #shape
  for i = 1, #shape do c.shape[i - 1] = shape[i] end
  return count
end
local function set_dense_strides(c)
  local step = 1
  for i = c.ndim - 1, 0, -1 do
    c.stride[i] = step
    step = step * tonumber(c.shape[i])
  end
end
local function set_image_strides(c)
  local C, H, W = tonumber(c.shape[1]), tonumber(c.shape[2]), tonumber(c.shape[3])
  c.stride[0], c.stride[1], c.stride[2], c.stride[3] = H * W * C, 1, W * C, C
end
local cpu = lib.devices.cpu
local function device_of(name)
  if name == nil or name == 'cpu' then return cpu end
  return lib.devices[name] or require('tycho.device').open(name)
end
local function allocate(c, count, dtype, device)
  c.dtype, c.device = dtype.code, device.code
  local storage = storages.new(count * dtype.size, dtype, device)
  c.data = storage.block
  return wrap(c, storage, dtype)
end

function M.map(list, fn)
  local out = {}
  for i = 1, #list do out[i] = fn(list[i]) end
  return out
end

-- An uninitialised row-major tensor. shape: Lua list of sizes; dtype: 'f32' (default), 'f64', 'f16', 'bf16', 'i64', 'i32', 'u8'; device: 'cpu'
-- (default) or 'cuda'.
function M.empty(shape, dtype, device)
  local c = struct()
  local count = set_shape('empty', c, shape)
  set_dense_strides(c)
  return allocate(c, count, dtype_of(dtype), device_of(device))
end

-- An uninitialised image: shape (N,C,H,W), memory (N,H,W,C).
function M.empty_image(shape, dtype, device)
  local c = struct()
  local count = set_shape('empty_image', c, shape)
  if #shape ~= 4 then raise(('empty_image: shape must be {N, C, H, W}, got %d sizes'):format(#shape)) end
  set_image_strides(c)
  return allocate(c, count, dtype_of(dtype), device_of(device))
end

-- A tensor over a storage's bytes, from byte offset on; stride: list in elements, row-major when nil. The caller has checked that it lies
-- inside and is aligned.
function M.from_storage(storage, offset, shape, dtype, stride)
  local c = struct()
  local count = set_shape('from_storage', c, shape)
  set_dense_strides(c)
  for i = 1, stride and count > 0 and #shape or 0 do
    if shape[i] > 1 then c.stride[i - 1] = stride[i] end
  end
  dtype = dtype_of(dtype)
  c.dtype, c.device = dtype.code, storages.home(storage).code
  c.data = ffi.cast('char *', storage.block) + offset
  return wrap(c, storage, dtype)
end

-- A tensor as a struct and a dtype (an entry of dtype.lua) describe it, over memory that somebody else frees. storage [opt]: that of another one
-- borrowed from the same block.
function M.borrow(c, dtype, storage)
  return wrap(struct(c), storage or storages.adopt(c.data, function() end, device_of_code[c.device]), dtype)
end

-- Whether the elements of a struct lie without gaps or repeats, in any order of dims.
local function is_packed(c)
  local span, count = 1, 1
  for i = 0, c.ndim - 1 do
    local size, stride = tonumber(c.shape[i]), tonumber(c.stride[i])
    if size > 1 and stride == 0 then return false end
    span = span + (size - 1) * stride
    count = count * size
  end
  return span == count or count == 0
end
M.is_packed = is_packed

-- An uninitialised tensor of x's shape, and of its memory order where x has no gaps; dtype and device are x's unless given.
function M.empty_like(x, dtype, device)
  local c = struct(x.c)
  local count = 1
  for i = 0, c.ndim - 1 do count = count * tonumber(c.shape[i]) end
  if not is_packed(c) then set_dense_strides(c) end
  return allocate(c, count, dtype and dtype_of(dtype) or x.type, device and device_of(device) or home(x))
end

-- What empty_like, zeros_like and op.sum_to need to know of x, for a rule that needs nothing else: a context that has x itself keeps its memory.
function M.form(x) return { c = x.c, type = x.type, shape = x.shape } end

-- A view of x's storage: fn(c) edits a copy of the struct; offset in elements.
function M.view_of(x, offset, edit, ...)
  local c = struct(x.c)
  edit(c, ...)
  c.data = ffi.cast('char *', x.c.data) + offset * x.type.size
  return wrap(c, x.storage, x.type)
end

-- ---- fields ----

function getters.shape(t)
  local out, c = {}, t.c
  for i = 1, c.ndim do out[i] = tonumber(c.shape[i - 1]) end
  return out
end
function getters.ndim(t) return t.c.ndim end
function getters.dtype(t) return t.type.name end
function getters.device(t) return home(t).name end

function Tensor:numel()
  local c, count = self.c, 1
  for i = 0, c.ndim - 1 do count = count * tonumber(c.shape[i]) end
  return count
end

-- dim as 0..ndim-1 from a dim that may count from the end.
function M.dim(t, dim, op)
  local n = t.c.ndim
  if type(dim) ~= 'number' or dim ~= math.floor(dim) or dim < -n or dim >= n then
    raise(('%s: dim %s is out of range -%d..%d for shape %s (dims count from 0)'):format(op, tostring(dim), n, n - 1, M.shape_text(t)))
  end
  return dim < 0 and dim + n or dim
end
-- For ops over the last dim alone: raises where another was asked for.
function M.check_last(t, dim, op)
  if dim and M.dim(t, dim, op) ~= t.c.ndim - 1 then
    raise(('%s: it goes over the last dim only, got dim %d of shape %s; transpose first'):format(op, dim, M.shape_text(t)))
  end
end
function Tensor:size(dim) return tonumber(self.c.shape[M.dim(self, dim, 'size')]) end
function Tensor:stride(dim) return tonumber(self.c.stride[M.dim(self, dim, 'stride')]) end

function M.shape_text(t)
  return '(' .. table.concat(M.map(getters.shape(t), tostring), ', ') .. ')'
end

function M.same_shape(a, b)
  local ac, bc = a.c, b.c
  if ac.ndim ~= bc.ndim then return false end
  for i = 0, ac.ndim - 1 do
    if ac.shape[i] ~= bc.shape[i] then return false end
  end
  return true
end

-- Whether the elements of two tensors of one shape lie in the same way.
function M.same_order(a, b)
  for i = 0, a.c.ndim - 1 do
    if a.c.shape[i] > 1 and a.c.stride[i] ~= b.c.stride[i] then return false end
  end
  return true
end

-- Row-major without gaps.
function Tensor:is_contiguous()
  local c, step = self.c, 1
  for i = c.ndim - 1, 0, -1 do
    local size = tonumber(c.shape[i])
    if size ~= 1 and tonumber(c.stride[i]) ~= step then return false end
    step = step * size
  end
  return true
end

-- (N,C,H,W) over (N,H,W,C) without gaps.
function Tensor:is_image()
  local c, step = self.c, 1
  if c.ndim ~= 4 then return false end
  for _, i in ipairs { 1, 3, 2, 0 } do
    local size = tonumber(c.shape[i])
    if size ~= 1 and tonumber(c.stride[i]) ~= step then return false end
    step = step * size
  end
  return true
end

-- Memory of a tensor that a scope or backward has freed must not be read: every path to it passes here.
function M.alive(t, op)
  if not t.storage.block then
    raise(('%s: this tensor of shape %s was freed when its scope ended; return it from the scope, or say tycho.keep(x) there'):format(op,
      M.shape_text(t)))
  end
  return t
end

-- Typed C pointer to the first element, for f16 and bf16 to its bits; valid while t is. Only on the CPU.
function Tensor:ptr()
  M.alive(self, 'ptr')
  if home(self) ~= cpu then
    raise(('ptr: this tensor of shape %s is on %s; copy it with :cpu() first'):format(M.shape_text(self), self.device))
  end
  return ffi.cast(self.type.pointer, self.c.data)
end

-- The elements as a C array in row order, and their number, for loops that LuaJIT compiles: p[0] to p[n - 1]. Valid while the tensor lives. Only of a
-- tensor whose elements lie so; x:contiguous() makes one.
function Tensor:data()
  if not self:is_contiguous() then
    lib.raise(('data: the elements of this %s tensor do not lie in row order; use x:contiguous():data(), and keep that tensor'):format(
      M.shape_text(self)))
  end
  return self:ptr(), self:numel()
end

-- ---- copies and conversions (not differentiable but for :to(dtype); ops contiguous and clone are) ----

-- x's elements in the memory of another device, waiting for those that x's device computes.
local function transfer(x, device)
  if lib.capturing and device == cpu then lib.refuse_captured('waits for the device', 'return the tensor and read it after the step') end
  if not is_packed(x.c) then x = M.dense(x) end
  local y, bytes = M.empty_like(x, nil, device.name), x:numel() * x.type.size
  if home(x) == cpu then
    lib.check(y.lib.ty_upload(y.c.data, x.c.data, bytes), y.lib)
  elseif device == cpu then
    lib.check(x.lib.ty_download(y.c.data, x.c.data, bytes), x.lib)
  else
    local between = transfer(x, cpu)
    lib.check(y.lib.ty_upload(y.c.data, between.c.data, bytes), y.lib)
    between.storage:free()
  end
  return y
end

-- The tensor itself goes to another device, and what refers to it sees it there. Its gradient is dropped.
function M.move(t, name)
  local moved = M.alive(t, 'move'):to(name)
  if moved == t then return end
  moved.storage.lasting = t.storage.lasting
  t.c, t.storage, t.lib, t.grad = moved.c, moved.storage, moved.lib, nil
end

-- y = x, broadcast and converted, from any device.
function M.copy_into(y, x)
  local there = home(x) ~= home(y) and transfer(x, home(y))
  lib.check(y.lib.ty_copy(y.c, (there or x).c), y.lib)
  if there then there.storage:free() end
  return y
end

-- x itself where it is row-major without gaps, else a copy that is. Not differentiable: for rules and forwards.
function M.dense(x)
  return x:is_contiguous() and x or M.copy_into(M.empty(x.shape, x.dtype, x.device), x)
end
-- The same for channels-last memory.
function M.image(x)
  return x:is_image() and x or M.copy_into(M.empty_image(x.shape, x.dtype, x.device), x)
end

-- A copy in another dtype; x itself where that is its own. For rules and forwards.
function M.converted(x, dtype)
  return dtype_of(dtype) == x.type and x or M.copy_into(M.empty_like(x, dtype), x)
end

-- A copy in another dtype, or on another device; x itself where nothing changes. Gradients flow from one float dtype to another, not between devices.
function Tensor:to(target)
  M.alive(self, 'to')
  if require('tycho.device').is_name(target) then
    local device = device_of(target)
    return device == home(self) and self or transfer(self, device)
  end
  if dtype_of(target) ~= self.type and dtype_of(target).real and M.is_recorded(self) then return Tensor.cast(self, target) end
  return M.converted(self, target)
end
function Tensor:cpu() return self:to('cpu') end

-- The number in a tensor of one element.
function Tensor:item()
  if self:numel() ~= 1 then raise(('item: expected one element, got shape %s'):format(M.shape_text(self))) end
  return self.type.read(self:cpu():ptr(), 0)
end

local function nest(read, pointer, c, dim, offset)
  if dim == c.ndim then return read(pointer, offset) end
  local out = {}
  local stride = tonumber(c.stride[dim])
  for i = 1, tonumber(c.shape[dim]) do out[i] = nest(read, pointer, c, dim + 1, offset + (i - 1) * stride) end
  return out
end
-- Nested Lua list of numbers (a number for a scalar). Lists count from 1.
function Tensor:tolist()
  local x = self:cpu()
  return nest(x.type.read, x:ptr(), x.c, 0, 0)
end

local function infer(value, shape)
  if type(value) == 'table' and not is_tensor(value) then
    shape[#shape + 1] = #value
    if value[1] ~= nil then infer(value[1], shape) end
  end
  return shape
end
local function fill_nested(pointer, value, shape, dim, offset, dtype)
  if dim > #shape then
    if type(value) ~= 'number' and not ffi.istype(int64, value) then
      raise(('tensor: expected numbers, got %s'):format(is_tensor(value) and 'a tensor; tycho.stack joins tensors' or type(value)))
    end
    M.check_element('tensor', dtype, value)
    pointer[offset] = value
    return offset + 1
  end
  if type(value) ~= 'table' or is_tensor(value) or #value ~= shape[dim] then
    raise(('tensor: ragged list: expected %d entries at depth %d, got %s'):format(shape[dim], dim - 1,
      type(value) == 'table' and #value or type(value)))
  end
  for i = 1, shape[dim] do offset = fill_nested(pointer, value[i], shape, dim + 1, offset, dtype) end
  return offset
end
-- A fresh tensor of the CPU's, filled by fill(its elements' C array, the entry of the dtype), as a dtype on a device.
local function filled(shape, dtype, device, fill)
  dtype = dtype_of(dtype)
  local t = M.empty(shape, dtype.short and 'f32' or dtype.name)
  fill(t:ptr(), dtype)
  t = t:to(dtype.name)
  return device and t:to(device) or t
end

-- A tensor from a number or a nested list of numbers.
function M.tensor(value, dtype, device)
  local shape = infer(value, {})
  return filled(shape, dtype, device, function(p, entry) fill_nested(p, value, shape, 1, 0, entry) end)
end

function M.full(shape, value, dtype, device)
  return M.empty(shape, dtype, device):fill_(value)
end

local MOST = 1024 -- numbers that are kept
local constants, count = {}, 0 -- device -> dtype -> number -> scalar

-- A scalar that is kept for M.scalar_like, or nil where it cannot be: a captured step writes nothing before it is launched.
local function keep_constant(value, dtype, where)
  if lib.capturing or count == MOST then return nil end
  local block = where[dtype.library].ty_alloc(dtype.size)
  if block == nil then return nil end
  local c = struct()
  c.dtype, c.device, c.data = dtype.code, where.code, block
  local scalar = M.borrow(c, dtype):fill_(value)
  constants[where] = constants[where] or {}
  constants[where][dtype] = constants[where][dtype] or {}
  constants[where][dtype][value], count = scalar, count + 1
  return scalar
end

-- A number to meet x in an elementwise op, not rounded to 16 bit as x may be: 1e-8 and 1e5 are no float16. One that was met before is there already,
-- and the op is one launch, not two; it is there for good, because graphs have its address. It is not to be changed in place.
function M.scalar_like(x, value)
  local where, dtype = home(x), x.type.real and not x.type.short and x.type or dtype_of 'f32'
  local is_key = value == value and 1 / value ~= -math.huge -- NaN is none, and -0 that of 0
  local known = constants[where] and constants[where][dtype]
  return is_key and (known and known[value] or keep_constant(value, dtype, where)) or M.full({}, value, dtype.name, where.name)
end
function M.zeros(shape, dtype, device) return M.full(shape, 0, dtype, device) end
function M.ones(shape, dtype, device) return M.full(shape, 1, dtype, device) end
function M.zeros_like(x) return M.empty_like(x):fill_(0) end
-- 0, 1, ... n-1
function M.arange(n, dtype, device)
  return filled({ n }, dtype, device, function(p)
    for i = 0, n - 1 do p[i] = i end
  end)
end

-- ---- printing and operators ----

function metatable.__newindex(t, key, value)
  if type(key) == 'number' then raise(('a tensor takes no assignment by number; say x[%s]:fill_(value) or :copy_(tensor)'):format(tostring(key))) end
  rawset(t, key, value)
end
function metatable.__tostring(t) return require('tycho.repl.print').tensor(t) end
for operator, name in pairs { __add = 'add', __sub = 'sub', __mul = 'mul', __div = 'div', __pow = 'pow' } do
  metatable[operator] = function(a, b) return Tensor[name](a, b) end
end
function metatable.__unm(a) return Tensor.neg(a) end

package.loaded['tycho.tensor'] = M -- which inplace.lua adds to
require 'tycho.inplace'

-- Operators reach ops by direct field access, so these are resolved when first used.
setmetatable(Tensor, {
  __index = function(t, key)
    local found = type(key) == 'string' and not absent[key] and not getters[key] and require('tycho.op').find(key)
    if found then
      rawset(t, key, found)
      return found
    end
    return nil
  end,
})

return M
