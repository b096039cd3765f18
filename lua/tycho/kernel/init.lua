-- tycho.kernel(record): an op from the text of a kernel, compiled when it is first used. A function of its inputs (the const pointers, in order) and
-- then its numbers, and an op's record: tycho.gradcheck checks it, tycho.op.add makes it a method of tensors, a file in ops/ may return it.
--
-- record: { cuda = [[__global__ void NAME(real *y, const real *x, real slope, int64_t n) {...}]],  compiled by NVRTC for the GPU at hand
--           c = [[void NAME(real *y, const real *x, real slope, int64_t n) {...}]],                for the CPU, by cc
--           lua = function(y, x, slope, n) ... end,   for the CPU, on pointers to the elements, where there is no c or no compiler
--           signature = 'void NAME(...)',             where there is only lua
--           backward = {the same fields} or function(ctx, dy), sample = function(generator), save = {names} }
--   real is float or double, as the tensors are. Tensors are row-major without gaps; n is the number of elements of the first output. In CUDA C,
--   kernels/block.h is at hand: thread_index(), block_sum(v).
--   shape     function(v): the shape of the first output [, of the second]; default: that of the first input. v has tensors and numbers by name
--   grid      function(v), a number or a list: blocks; default: a thread for each element of the first output
--   block     the same: threads; default 256; whole warps
--   zeroed    {names}: outputs that are 0 at first, for sums
--   backward  writes dNAME for inputs NAME, from dy (d and the first output's name) and any inputs, outputs and numbers by name; or an op's rule,
--             where ctx:saved() gives what save names, four at most
-- record of an elementwise kernel: { name = 'softsign', inputs = {'x'}, numbers = {'slope'}, y = 'x / (slope + fabs(x))',
--           dx = 'dy * slope / ((slope + fabs(x)) * (slope + fabs(x)))', sample = } with expressions for CUDA C and C; inputs have equal shapes.
local lib = require 'tycho.lib'
local dtypes = require 'tycho.dtype'
local op = require 'tycho.op'
local tensor = require 'tycho.tensor'
local bodies = require 'tycho.kernel.body'
local check_options = require 'tycho.options'
local each = require 'tycho.kernel.each'
local signature = require 'tycho.kernel.signature'

local function names_of(parameters)
  local names = {}
  for i, p in ipairs(parameters) do names[i] = p.name end
  return names
end
local function set_of(names)
  local set = {}
  for _, name in ipairs(names) do set[name] = true end
  return set
end

-- ---- elementwise records ----

-- Whether an expression names something.
local function mentions(expression, name) return expression:find('%f[%w_]' .. name .. '%f[^%w_]') ~= nil end

local function written_out(record)
  local inputs, numbers, gradients, read = record.inputs, record.numbers or {}, {}, { 'dy' }
  local known = { name = true, inputs = true, numbers = true, y = true, sample = true }
  for _, name in ipairs(type(inputs) == 'table' and inputs or {}) do known['d' .. name] = true end
  check_options('kernel', record, known)
  if type(record.name) ~= 'string' or type(inputs) ~= 'table' then
    lib.raise("kernel: an expression y wants name = 'NAME' and inputs = {'x'}, names of its tensors")
  end
  each.check_names(record.name, inputs, numbers)
  for _, name in ipairs(inputs) do
    local expression = record['d' .. name]
    if expression then gradients[#gradients + 1] = { 'd' .. name, expression } end
  end
  for _, name in ipairs { 'y', unpack(inputs) } do
    local needed = false
    for _, g in ipairs(gradients) do needed = needed or mentions(g[2], name) end
    if needed then read[#read + 1] = name end
  end
  local full = each.texts(record.name, { { 'y', record.y } }, inputs, numbers)
  full.elementwise, full.sample = true, record.sample
  if gradients[1] then full.backward = each.texts(record.name .. '_back', gradients, read, numbers) end
  return full
end

-- ---- arguments ----

local function check_dtypes(name, parameters, values)
  local real
  for _, p in ipairs(parameters) do
    local t = values[p.name]
    local wanted = signature.types[p.type].dtype
    if wanted == 'real' then
      real = real or t.type
      wanted = real.real and not real.short and real.name or 'f32 or f64'
    end
    if t.dtype ~= wanted then
      lib.raise(('kernel %s: %s must be %s, got %s; convert it with :to(dtype)'):format(name, p.name, wanted, t.dtype))
    end
  end
  return real or dtypes.f32
end

local function check_numbers(name, parameters, values)
  for _, p in ipairs(parameters) do
    local v = values[p.name]
    local whole = signature.types[p.type].whole
    if type(v) ~= 'number' or whole and v ~= math.floor(v) then
      lib.raise(('kernel %s: %s must be a %s, got %s'):format(name, p.name, whole and 'whole number' or 'number', tostring(v)))
    end
  end
end

-- The device that all tensors are on.
local function common_device(name, parameters, values)
  local device
  for _, p in ipairs(parameters) do
    local t = values[p.name]
    device = device or lib.device_of_code[t.c.device]
    if lib.device_of_code[t.c.device] ~= device then
      lib.raise(('kernel %s: %s is on %s, the others are on %s; move one with :to(device)'):format(name, p.name, t.device, device.name))
    end
  end
  return device or lib.devices.cpu
end

-- Replaces the tensors of parameters by ones that lie without gaps: row-major, or, elementwise, all as images where the first is one.
local function lay_out(name, parameters, values, elementwise)
  local first = parameters[1] and values[parameters[1].name]
  local as_images = elementwise and first:is_image() and not first:is_contiguous()
  for _, p in ipairs(parameters) do
    local t = values[p.name]
    if elementwise and not tensor.same_shape(t, first) then
      lib.raise(('kernel %s: %s has shape %s and %s has shape %s; an elementwise kernel wants equal shapes, which :expand makes'):format(name,
        parameters[1].name, tensor.shape_text(first), p.name, tensor.shape_text(t)))
    end
    values[p.name] = (as_images and tensor.image or tensor.dense)(t)
  end
  return as_images
end

-- Adds fresh outputs to values; shapes: a list for each.
local function allocate(body, zeroed, values, shapes, real, device, as_images)
  for i, p in ipairs(body.signature.outputs) do
    local dtype = signature.types[p.type].dtype
    local make = as_images and tensor.empty_image or tensor.empty
    values[p.name] = make(shapes[i] or shapes[1], dtype == 'real' and real.name or dtype, device.name)
    if zeroed[p.name] then values[p.name]:zero_() end
  end
end

-- ---- the two passes ----

local function forward_of(body, record, saves)
  local s, zeroed = body.signature, set_of(record.zeroed or {})
  return function(ctx, ...)
    local values = {}
    for i, p in ipairs(s.inputs) do values[p.name] = (select(i, ...)) end
    for i, p in ipairs(s.numbers) do values[p.name] = (select(#s.inputs + i, ...)) end
    check_numbers(body.name, s.numbers, values)
    local real, device = check_dtypes(body.name, s.inputs, values), common_device(body.name, s.inputs, values)
    ctx.as_images = lay_out(body.name, s.inputs, values, record.elementwise)
    local shapes = { (record.shape or function(v) return v[s.inputs[1].name].shape end)(values) }
    allocate(body, zeroed, values, shapes, real, device, ctx.as_images)
    body:run(device, real, values)
    if ctx.grad and saves then
      ctx.numbers, ctx.shapes = {}, {}
      for _, p in ipairs(s.inputs) do ctx.shapes['d' .. p.name] = values[p.name].shape end
      for _, p in ipairs(s.numbers) do ctx.numbers[p.name] = values[p.name] end
      ctx:save(values[saves[1]], values[saves[2]], values[saves[3]], values[saves[4]])
    end
    return values[s.outputs[1].name], s.outputs[2] and values[s.outputs[2].name]
  end
end

-- Raises unless each of names, a record's field [opt], is a name in lists of parameters.
local function check_known(kernel, field, names, ...)
  local known, all = {}, {}
  for _, list in ipairs { ... } do
    for _, p in ipairs(list) do known[p.name], all[#all + 1] = true, p.name end
  end
  for _, name in ipairs(names or {}) do
    if not known[name] then
      lib.raise(("kernel %s: %s names '%s'; expected some of: %s"):format(kernel, field, tostring(name), table.concat(all, ', ')))
    end
  end
end

-- Raises what is wrong with the fields of a record, or of its backward, that speak of the parameters.
local function check_fields(body, record)
  local s = body.signature
  check_known(body.name, 'zeroed', record.zeroed, s.outputs)
  check_known(body.name, 'save', record.save, s.inputs, s.outputs)
  if #(record.save or {}) > 4 then lib.raise(('kernel %s: save names %d tensors; 4 can be saved'):format(body.name, #record.save)) end
end

-- The rule that runs body on what was saved: names in saves.
local function rule_of(body, forward, record, saves)
  local s, zeroed = body.signature, set_of(record.zeroed or {})
  local dy_name = 'd' .. forward.signature.outputs[1].name
  return function(ctx, dy)
    local values, saved, shapes = { [dy_name] = dy }, { ctx:saved() }, {}
    for i, name in ipairs(saves) do values[name] = saved[i] end
    for name, number in pairs(ctx.numbers) do values[name] = number end
    for i, p in ipairs(s.outputs) do shapes[i] = ctx.shapes[p.name] end
    local real = check_dtypes(body.name, s.inputs, values)
    values[dy_name] = (ctx.as_images and tensor.image or tensor.dense)(dy)
    allocate(body, zeroed, values, shapes, real, lib.device_of_code[dy.c.device], ctx.as_images)
    body:run(lib.device_of_code[dy.c.device], real, values)
    local gradients = {}
    for i, p in ipairs(forward.signature.inputs) do gradients[i] = ctx.needs[i] and values['d' .. p.name] or false end
    return unpack(gradients, 1, #forward.signature.inputs)
  end
end

-- What a rule's body must be given besides dy: names of the forward's tensors. Raises where it wants or gives something else.
local function saved_by(body, forward)
  local f, known, saves, dy_name = forward.signature, {}, {}, 'd' .. forward.signature.outputs[1].name
  for _, list in ipairs { f.inputs, f.outputs } do
    for _, p in ipairs(list) do known[p.name] = true end
  end
  for _, p in ipairs(body.signature.inputs) do
    if p.name ~= dy_name then
      if not known[p.name] then
        lib.raise(("kernel %s: '%s' is neither %s nor an input or output of %s"):format(body.name, p.name, dy_name, forward.name))
      end
      saves[#saves + 1] = p.name
    end
  end
  if #saves > 4 then lib.raise(('kernel %s: it reads %d tensors of the forward pass; 4 can be saved'):format(body.name, #saves)) end
  local inputs, numbers = set_of(names_of(f.inputs)), set_of(names_of(f.numbers))
  for _, p in ipairs(body.signature.outputs) do
    if not inputs[p.name:match '^d(.*)$' or ''] then
      lib.raise(("kernel %s: its output '%s' is no gradient; expected d and the name of an input of %s"):format(body.name, p.name, forward.name))
    end
  end
  for _, p in ipairs(body.signature.numbers) do
    if not numbers[p.name] then lib.raise(("kernel %s: '%s' is no number of %s"):format(body.name, p.name, forward.name)) end
  end
  return saves
end

-- ---- the record ----

local Kernel = {}
Kernel.__index = Kernel
function Kernel:__call(...) return self.call(...) end

-- Compiles all CUDA C for an architecture such as 90, which need not be here: raises what is wrong with it.
function Kernel:check(architecture)
  self.forward_body:check(architecture)
  if self.backward_body then self.backward_body:check(architecture) end
end

local fields = set_of { 'cuda', 'c', 'lua', 'signature', 'backward', 'sample', 'save', 'shape', 'grid', 'block', 'zeroed', 'per_thread',
  'elementwise' }

return function(record)
  if type(record) ~= 'table' then lib.raise(('kernel: expected a record such as {cuda = [[...]]}, got %s'):format(type(record))) end
  if record.y then record = written_out(record) end
  check_options('kernel', record, fields)
  local caller = signature.caller()
  local forward = bodies.new(record, caller)
  check_fields(forward, record)
  local backward, saves, back_body = record.backward, record.save, nil
  if type(backward) == 'table' then
    check_options('kernel', backward, fields)
    back_body = bodies.new(backward, caller)
    check_fields(back_body, backward)
    saves = saved_by(back_body, forward)
    backward = rule_of(back_body, forward, backward, saves)
  end
  local inputs = names_of(forward.signature.inputs)
  if #inputs == 0 and not record.shape then
    lib.raise(('kernel %s: it reads no tensor (a pointer with const), so that its output has no shape; give shape = function(v) ... end'):format(
      forward.name))
  end
  if #inputs > 6 or #inputs + #forward.signature.numbers > 8 then
    lib.raise(('kernel %s: an op takes at most 6 tensors, and 8 arguments in all'):format(forward.name))
  end
  local self = setmetatable({ name = forward.name, inputs = inputs, sample = record.sample, backward = backward, forward_body = forward,
    backward_body = back_body, forward = forward_of(forward, record, backward and (saves or {})) }, Kernel)
  self.call = op.new(self)
  return self
end
