-- Base of layers and models. Fields that hold tensors or modules are registered in the order of assignment (one by one: Lua assigns
-- a, b = x, y from the right), so names and order of the state dict equal PyTorch's. A tensor field that requires a gradient is a
-- parameter, any other tensor a buffer.
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'
local autograd = require 'tycho.autograd'
local scope = require('tycho.scope').scope
local check_options = require 'tycho.options'
local nearest = require 'tycho.nearest'
local python = require 'tycho.io.python'

local Module = {}
Module.__index = Module

local function is_module(x) return type(x) == 'table' and rawget(x, '_fields') ~= nil and not tensor.is_tensor(x) end
Module.is_module = is_module

local function assign(self, key, value)
  if tensor.is_tensor(value) or is_module(value) then
    local fields, is_there = rawget(self, '_fields'), false
    for _, known in ipairs(fields) do is_there = is_there or known == key end
    if not is_there then fields[#fields + 1] = key end
  end
  rawset(self, key, value)
end

-- The names of the fields, in order; last those whose value took the place of a plain one, which Lua does not tell of.
local function fields_of(self)
  local known, late = {}, {}
  for _, key in ipairs(self._fields) do known[key] = true end
  for key, value in pairs(self) do
    if not known[key] and (tensor.is_tensor(value) or is_module(value)) then late[#late + 1] = key end
  end
  table.sort(late, function(a, b) return tostring(a) < tostring(b) end)
  for _, key in ipairs(late) do self._fields[#self._fields + 1] = key end
  return self._fields
end

-- Raises for arguments that init has no name for, as in Linear(3, 2, false).
local function check_arguments(init, ...)
  local info, names = debug.getinfo(init, 'u'), {}
  if info.isvararg then return end
  for i = 2, info.nparams do names[i - 1] = debug.getlocal(init, i) end
  for i = #names + 1, select('#', ...) do
    local extra = select(i, ...)
    if extra ~= nil then
      lib.raise(('this layer is made with (%s); got %s as argument %d'):format(table.concat(names, ', '), tostring(extra), i))
    end
  end
end

-- A new layer class: local Linear = Module.class(); function Linear:init(...) ... end; function Linear:forward(x) ... end
-- Linear(...) makes one, layer(x) runs it. With scoped = true in options [opt] each run is a tycho.scope: what neither its results nor backward
-- need is freed at its end, and what only backward needs as soon as that has passed.
function Module.class(options)
  check_options('Module.class', options, { scoped = true })
  local class = setmetatable({}, {
    __index = Module,
    __call = function(class, ...)
      local self = setmetatable({ _fields = {}, training = true }, class.instance)
      self:init(...)
      check_arguments(class.init, ...)
      return self
    end,
  })
  local function run(self, ...) return self:forward(...) end
  local function run_scoped(self, ...) return scope(self.forward, self, ...) end
  class.instance = { __index = class, __newindex = assign, __call = options and options.scoped and run_scoped or run }
  return class
end

-- A layer without parameters need not have one.
function Module.init() end
function Module.forward() lib.raise 'this layer has no forward: write function Layer:forward(x) ... end' end

-- Appends {name, tensor} of every tensor to list, depth first, names joined by dots. above: the modules on the way.
local function collect(self, prefix, list, above)
  if above[self] then lib.raise(("a module holds itself, as '%s'"):format(prefix:sub(1, -2))) end
  above[self] = true
  for _, key in ipairs(fields_of(self)) do
    local value = self[key]
    local name = prefix .. tostring(key)
    if is_module(value) then collect(value, name .. '.', list, above) elseif tensor.is_tensor(value) then list[#list + 1] = { name, value } end
  end
  above[self] = nil
  return list
end

-- List of {name, tensor} in order: parameters and buffers.
function Module:state_dict() return collect(self, '', {}, {}) end

-- List of {name, tensor}: those that learn, each once, by its first name.
function Module:named_parameters()
  local list, seen = {}, {}
  for _, entry in ipairs(self:state_dict()) do
    local t = entry[2]
    if t.requires_grad and not seen[t] then
      list[#list + 1] = entry
      seen[t] = true
    end
  end
  return list
end
function Module:parameters()
  local list = {}
  for i, entry in ipairs(self:named_parameters()) do list[i] = entry[2] end
  return list
end
function Module:num_parameters()
  local n = 0
  for _, p in ipairs(self:parameters()) do n = n + p:numel() end
  return n
end

-- Data-parallel and compiled runs put these into names.
local function plain(name) return (name:gsub('_orig_mod%.', ''):gsub('^module%.', '')) end

-- The constant (1, 1, T, T) mask that older GPT code saves beside its weights.
local function is_causal_mask(name, t)
  return name:match('attn%.bias$') and t.ndim == 4 and t:size(0) == 1 and t:size(1) == 1 and t:size(2) == t:size(3)
end

-- '; 2 label: a, b' with at most five names; near(name) adds what each may have meant.
local function part(label, names, near)
  if #names == 0 then return '' end
  table.sort(names)
  local shown = {}
  for i = 1, math.min(#names, 5) do shown[i] = names[i] .. (near and near(names[i]) or '') end
  return ('; %d %s: %s%s'):format(#names, label, table.concat(shown, ', '), #names > 5 and ', ...' or '')
end

-- Copies values by name. source: Dict, table name -> tensor, or what state_dict returns. The prefixes 'module.' and '_orig_mod.' and causal masks
-- that this model has no place for are ignored. Raises with all missing, unexpected and misshapen names and changes nothing then. where: what to
-- call the source in that message.
function Module:load_state_dict(source, where)
  local given, missing, unexpected, wrong = {}, {}, {}, {}
  if type(source) ~= 'table' or tensor.is_tensor(source) then lib.raise('load_state_dict: expected tensors by name, got ' .. type(source)) end
  for name, t in python.pairs(python.named(source)) do
    if type(name) ~= 'string' or not tensor.is_tensor(t) then
      lib.raise(("load_state_dict: expected tensors by name, but '%s' is a %s"):format(tostring(name), type(t)))
    end
    local short = plain(name)
    if given[short] then unexpected[#unexpected + 1] = name else given[short] = t end
  end
  local copies = {}
  for _, entry in ipairs(self:state_dict()) do
    local name, t = entry[1], entry[2]
    local value = given[name]
    if not value then
      missing[#missing + 1] = name
    elseif not tensor.same_shape(value, t) then
      wrong[#wrong + 1] = ('%s is %s, expected %s'):format(name, tensor.shape_text(value), tensor.shape_text(t))
    else
      copies[#copies + 1] = { t, value }
    end
    given[name] = nil
  end
  for name, t in pairs(given) do
    if not is_causal_mask(name, t) then unexpected[#unexpected + 1] = name end
  end
  local problems = part('missing', missing) .. part('unexpected', unexpected, function(name)
    local near = nearest(name, missing)
    return near and (' (near %s)'):format(near) or ''
  end) .. part('of another shape', wrong)
  if problems ~= '' then error(('%s does not fit this model%s'):format(where or 'the state dict', problems), 0) end
  autograd.no_grad(function()
    for _, copy in ipairs(copies) do copy[1]:copy_(copy[2]) end
  end)
  return self
end

local function set_training(self, on)
  rawset(self, 'training', on)
  for _, key in ipairs(fields_of(self)) do
    if is_module(self[key]) then set_training(self[key], on) end
  end
  return self
end
-- on [opt]: false for eval mode.
function Module:train(on) return set_training(self, on ~= false) end
function Module:eval() return set_training(self, false) end

-- module -> its mode, of self and all in it.
local function modes_of(self, modes)
  modes[self] = self.training
  for _, key in ipairs(fields_of(self)) do
    if is_module(self[key]) then modes_of(self[key], modes) end
  end
  return modes
end

-- Moves parameters and buffers to a device; counters (int64) stay on the CPU. Call it before an optimiser has met the parameters. Returns self.
function Module:to(device)
  if not require('tycho.device').is_name(device) then
    lib.raise(("Module:to: expected a device, cpu or cuda, got '%s'; parameters are float32, tycho.autocast computes in 16 bit"):format(
      tostring(device)))
  end
  for _, entry in ipairs(self:state_dict()) do
    if entry[2].type.real then tensor.move(entry[2], device) end
  end
  return self
end
-- Where the first parameter is.
function Module:device() return self:parameters()[1].device end

-- Runs fn() in eval mode and without gradients; each module's mode is restored whatever happens.
function Module:evaluating(fn)
  local modes = modes_of(self, {})
  self:eval()
  local function finish(ok, ...)
    for module, training in pairs(modes) do rawset(module, 'training', training) end
    if not ok then error((...), 0) end
    return ...
  end
  return finish(xpcall(autograd.no_grad, lib.remember, fn))
end

-- A learnable tensor: values is an f32 tensor.
function Module.parameter(values) return values:requires_grad_() end

return Module
