-- Type files for the Lua language server, from the comments in the sources: a definition for every op, method, layer, loss, optimiser and public
-- function, with its comment. Parameters that are tensors by an op's record are typed; what nobody declares stays any.
local tycho = require 'tycho'
local comments = require 'tycho.help.comments'
local generator = require 'tycho.generator'
local help = require 'tycho.help'
local lib = require 'tycho.lib'
local op = require 'tycho.op'
local tensor = require 'tycho.tensor'

local M = {}

local folders = { 'nn', 'loss', 'optim', 'io', 'data', 'train', 'plot', 'sweep', 'runs', 'config' }
local reserved = require('tycho.repl.lexer').keywords

local head = [[
---@meta tycho

---A strided view of numbers; rows, dims and indices count from 0.
---@class tycho.Tensor
---@field shape integer[]
---@field dtype string
---@field ndim integer
---@field grad tycho.Tensor?
---@field requires_grad boolean?
---@field [integer] tycho.Tensor
---@operator add(tycho.Tensor|number): tycho.Tensor
---@operator sub(tycho.Tensor|number): tycho.Tensor
---@operator mul(tycho.Tensor|number): tycho.Tensor
---@operator div(tycho.Tensor|number): tycho.Tensor
---@operator pow(tycho.Tensor|number): tycho.Tensor
---@operator unm: tycho.Tensor
local Tensor = {}

---A layer or a model; calling it runs its forward.
---@class tycho.Module
---@overload fun(...): tycho.Tensor
---@field forward fun(self: tycho.Module, ...): tycho.Tensor
---@field [string] any
local Module = {}

---@class tycho.Optimizer
---@field lr number
---@field [string] any
local Optimizer = {}

---@class tycho
tycho = {}
]]

-- Names of the parameters in a text such as '(x, dims, keepdim)', as a list that Lua accepts.
local function parameters_of(text)
  local list = {}
  for name in (text or ''):gmatch('[%a_][%w_]*%f[^%w_]') do
    if not reserved[name] then list[#list + 1] = name end
  end
  if (text or ''):find('...', 1, true) then list[#list + 1] = '...' end
  return list
end

local function documented(lines, text)
  for line in ((text or '') .. '\n'):gmatch('(.-)\n') do
    if line ~= '' then lines[#lines + 1] = '---' .. line end
  end
end

-- What functions return whose comments are no record: names of those that give a tensor, a module or a list of tensors.
local results = {}
for _, name in ipairs { 'tensor', 'empty', 'empty_image', 'empty_like', 'full', 'zeros', 'ones', 'zeros_like', 'arange', 'to', 'cpu', 'copy_',
  'fill_', 'zero_', 'detach', 'requires_grad_' } do
  results[name] = 'tycho.Tensor'
end
for _, name in ipairs { 'numel', 'size', 'stride', 'item', 'num_parameters' } do results[name] = 'number' end
results.parameters = 'tycho.Tensor[]'

-- Adds a definition. types: parameter -> type [opt]; result: type [opt].
local function define(lines, name, parameters, text, types, result)
  documented(lines, text)
  for _, parameter in ipairs(parameters) do
    if types and types[parameter] then lines[#lines + 1] = ('---@param %s %s'):format(parameter, types[parameter]) end
  end
  if result then lines[#lines + 1] = '---@return ' .. result end
  lines[#lines + 1] = ('function %s(%s) end\n'):format(name, table.concat(parameters, ', '))
end

-- What a name such as tycho.nn.Linear means, or nil: parts that only their own folder requires are no fields.
local function value_of(name)
  local value = tycho
  for part in name:gmatch('%.([%w_]+)') do value = type(value) == 'table' and value[part] or nil end
  return value
end
local function exists(name) return value_of(name) ~= nil end

-- Whether x:name(...) makes sense: the first argument of the op is a tensor.
local function is_method(record)
  if not record then return true end
  if record.list then return false end
  return record.inputs ~= nil or tensor.is_tensor((record.sample(generator(0, 5))))
end

local function without_first(list) return { unpack(list, 2) } end

local function ops(lines)
  for _, name in ipairs(op.names()) do
    local record = not op.rows[name] and op.record(name) or nil
    local entry = help.find({}, name)
    local parameters, types = parameters_of(entry.signature:match('^[%w_]+(%b())') or '(x, ...)'), {}
    for i, input in ipairs(record and not record.list and record.inputs or {}) do
      local is_optional = input:sub(-1) == '?'
      types[parameters[i] or ''] = 'tycho.Tensor' .. (is_optional and '?' or '')
    end
    if op.rows[name] then types = { x = 'tycho.Tensor', a = 'tycho.Tensor|number', b = 'tycho.Tensor|number' } end
    define(lines, 'tycho.' .. name, parameters, entry.text, types, 'tycho.Tensor')
    if is_method(record) then define(lines, 'Tensor:' .. name, without_first(parameters), entry.text, types, 'tycho.Tensor') end
  end
end

-- Methods and functions of a source: those of `class` as methods of it, those of M as functions of `prefix`.
local function entries(lines, path, class, target, prefix)
  local source, seen = comments.read(path), {}
  for _, entry in ipairs(source.entries) do
    local method = entry.name:match('^' .. class .. ':([%w_]+)$')
    local fn = entry.name:match('^M%.([%w_]+)$')
    local name = method and target and target .. ':' .. method or fn and prefix and prefix .. '.' .. fn
    if name and (method or exists(name)) and entry.parameters and not entry.is_local and not seen[name] then
      local result = name == 'Module:to' and 'tycho.Module' or results[method or fn]
      define(lines, name, parameters_of(entry.parameters), entry.text, nil, result)
      seen[name] = true
    end
  end
end

local function sources(folder)
  local list = {}
  for _, path in ipairs(help.files()) do
    if path:match('/lua/tycho/' .. folder .. '/[%w_]+%.lua$') then list[#list + 1] = path end
  end
  return list
end

-- Parameters of the one thing that a file holds, a class's or a returned function's; nil for a module of several.
local function parameters_of_file(source)
  for _, wanted in ipairs { source.stem .. ':init', source.stem } do
    for _, entry in ipairs(source.entries) do
      if entry.name == wanted then return parameters_of(entry.parameters) end
    end
  end
end

-- What the one function of a file in a folder gives.
local made = { nn = 'tycho.Module', loss = 'tycho.Tensor' }
-- Parameters and results of classes that leave making objects to their base.
local inherited_parameters = { nn = { class = 'tycho.Module' }, optim = { 'parameters', 'options', class = 'tycho.Optimizer' } }
local function is_class(value)
  local meta = type(value) == 'table' and getmetatable(value)
  return meta and meta.__call ~= nil
end

local function module(lines, path, folder)
  local source = comments.read(path)
  local is_front = source.stem == 'init'
  local name = is_front and 'tycho.' .. folder or ('tycho.%s.%s'):format(folder, source.stem)
  if not exists(name) then return end
  local parameters = parameters_of_file(source)
  if parameters then return define(lines, name, parameters, source.head, nil, made[folder]) end
  local inherited = is_class(value_of(name)) and inherited_parameters[folder]
  if inherited then return define(lines, name, inherited, source.head, nil, inherited.class) end
  if not is_front then
    documented(lines, source.head)
    lines[#lines + 1] = name .. ' = {}\n'
  end
  local is_base = source.stem == 'Module' or source.stem == 'Optimizer'
  entries(lines, path, source.stem, is_base and source.stem or nil, name)
end

-- The text of the type file.
function M.text()
  local lines = { head }
  for _, stem in ipairs { 'tensor', 'inplace', 'autograd', 'backward' } do
    entries(lines, ('%s/lua/tycho/%s.lua'):format(lib.root, stem), 'Tensor', 'Tensor', 'tycho')
  end
  for _, stem in ipairs { 'scope', 'storage', 'lib', 'init' } do entries(lines, ('%s/lua/tycho/%s.lua'):format(lib.root, stem), 'M', nil, 'tycho') end
  ops(lines)
  for _, folder in ipairs(folders) do
    lines[#lines + 1] = ('tycho.%s = {}\n'):format(folder)
    for _, path in ipairs(sources(folder)) do module(lines, path, folder) end
  end
  for _, name in ipairs { 'generator', 'gradcheck', 'table', 'hash' } do
    local source = comments.read(('%s/lua/tycho/%s.lua'):format(lib.root, name))
    local signature = source.head:match('^[%w_.]*' .. name .. '(%b())')
    define(lines, 'tycho.' .. name, parameters_of(signature or '(...)'), source.head)
  end
  lines[#lines + 1] = 'return tycho\n'
  return table.concat(lines, '\n')
end

return M
