-- Files of tensors in any of the formats. Reading goes by what the file holds, writing by the ending of its name. What is nested is also
-- listed flat, under names joined by '/'.
local tensor = require 'tycho.tensor'
local file = require 'tycho.io.file'
local npy = require 'tycho.io.npy'
local npz = require 'tycho.io.npz'
local pt = require 'tycho.io.pt'
local python = require 'tycho.io.python'
local safetensors = require 'tycho.io.safetensors'
local zip = require 'tycho.io.zip'

local M = {}

local formats = { npy = npy, npz = npz, pt = pt, safetensors = safetensors }

local function format_of(path)
  return file.with_mapping(path, function(bytes, size)
    local function starts(text, at)
      for i = 1, #text do
        if at + i > size or bytes[at + i - 1] ~= text:byte(i) then return false end
      end
      return true
    end
    if starts('\147NUMPY', 0) then return 'npy' end
    if starts('{', 8) then return 'safetensors' end -- before it comes a length, which may look like the beginnings below
    if starts('PK', 0) then
      for _, entry in ipairs(zip.open(bytes, size, path)) do
        if entry.name:match('%.npy$') then return 'npz' end
      end
      return 'pt'
    end
    if starts('\128', 0) then return 'pt' end
    file.fail(path, 'holds no tensors that this program knows: expected a .pt, .safetensors, .npz or .npy file')
  end)
end

local function is_container(x) return python.is_dict(x) or python.is_tuple(x) or type(x) == 'table' and getmetatable(x) == nil end

-- An array of strings, as .npy files hold them.
local function is_strings(x)
  if type(x) ~= 'table' or getmetatable(x) ~= nil then return false end
  for i = 1, #x do
    if type(x[i]) ~= 'string' then return x.shape ~= nil end
  end
  return x.shape ~= nil or #x > 0
end

-- Appends { name, value } of every tensor and plain value below value. Lists of plain values are listed whole.
local function flatten(value, name, out)
  if not is_container(value) or is_strings(value) then
    out[#out + 1] = { name, value }
    return
  end
  local function below(key)
    local text = python.is_tuple(key) and '(' .. table.concat(tensor.map(key, tostring), ', ') .. ')' or tostring(key)
    return name == '' and text or name .. '/' .. text
  end
  if python.is_dict(value) then
    for key, child in value:pairs() do flatten(child, below(key), out) end
    if value:len() > 0 then return end
  end
  for i = 1, #value do
    if is_container(value[i]) or tensor.is_tensor(value[i]) then
      for j = 1, #value do flatten(value[j], below(j - 1), out) end
      return
    end
  end
  out[#out + 1] = { name, value }
end

-- The list of { name, value } of all tensors and plain values (numbers, strings, lists of them) in value, in order; where names it in errors.
function M.entries(value, where)
  local out, seen = {}, {}
  flatten(value, '', out)
  for _, entry in ipairs(out) do
    if entry[1] == '' then entry[1] = 'value' end
    if seen[entry[1]] then file.fail(where, 'two values have the name %s', entry[1]) end
    seen[entry[1]] = true
  end
  return out
end

-- The value of the file (a Dict for .npz too), its table of metadata strings (empty for formats that have none), and the format: 'pt',
-- 'safetensors', 'npz' or 'npy'.
function M.load(path)
  local format = format_of(path)
  local value, metadata = formats[format].load(path)
  if format == 'npz' then
    local names, dict = {}, python.dict()
    for name in pairs(value) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do dict:set(name, value[name]) end
    value = dict
  end
  return value, metadata or {}, format
end

-- The format that the ending of path names, of those that M.save writes.
function M.format_to_write(path)
  local ending = path:match('%.([^./]*)$')
  local format = ({ pt = 'pt', pth = 'pt', safetensors = 'safetensors', npz = 'npz' })[ending]
  if not format then
    error(('cannot write %s: expected a name that ends in .pt, .safetensors or .npz'):format(path), 0)
  end
  return format
end

-- Writes value, as M.load returns it, or a module or its state dict, in the format that path names. Returns the list of names that this format has
-- no place for: plain values in .safetensors and .npz (which holds lists of strings), metadata in .pt and .npz. Raises where that is all of it.
function M.save(path, value, metadata)
  local format = M.format_to_write(path)
  local left_out, arrays, count = {}, {}, 0
  if type(value) == 'table' and not tensor.is_tensor(value) and type(value.state_dict) == 'function' then value = value:state_dict() end
  value = python.named(value)
  for key in pairs(format ~= 'safetensors' and metadata or {}) do left_out[#left_out + 1] = 'metadata ' .. key end
  table.sort(left_out)
  if format == 'pt' then
    pt.save(path, value)
    return left_out
  end
  for _, entry in ipairs(M.entries(value, path)) do
    local kept = tensor.is_tensor(entry[2]) or format == 'npz' and is_strings(entry[2])
    if kept then arrays[entry[1]], count = entry[2], count + 1 else left_out[#left_out + 1] = entry[1] end
  end
  if count == 0 and #left_out > 0 then
    error(('cannot write %s: the value holds no tensor, and .%s has no place for anything else'):format(path, format), 0)
  end
  formats[format].save(path, arrays, format == 'safetensors' and metadata or nil)
  return left_out
end

return M
