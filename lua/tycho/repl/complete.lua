-- What could follow the text before the cursor: names of the session and globals, fields after '.', methods after ':'.
local M = {}

local function add_keys(out, t, prefix, seen)
  if type(t) ~= 'table' then return end
  for key in pairs(t) do
    if type(key) == 'string' and key:sub(1, #prefix) == prefix and key:match('^[%a_][%w_]*$') and not seen[key] then
      seen[key] = true
      out[#out + 1] = key
    end
  end
end

-- Files of a folder of the framework are fields that load when first named.
local function add_modules(out, folder, prefix, seen)
  local lfs, lib = require 'lfs', require 'tycho.lib'
  local path = lib.root .. '/lua/tycho/' .. folder
  if lfs.attributes(path, 'mode') ~= 'directory' then return end
  for entry in lfs.dir(path) do
    local name = entry:match('^([%a_][%w_]*)%.lua$')
    if name then add_keys(out, { [name] = true }, prefix, seen) end
  end
end

local function resolve(environment, path)
  local value = environment
  for part in path:gmatch('[%a_][%w_]*') do
    local ok, found = pcall(function() return value[part] end)
    if not ok or found == nil then return nil end
    value = found
  end
  return value
end

-- Candidates (whole words, sorted) for the word that ends text, and that word.
function M.candidates(environment, text)
  local path, separator, prefix = text:match('([%a_][%w_%.]-)([%.:])([%w_]*)$')
  local out, seen = {}, {}
  if not path then
    prefix = text:match('([%a_][%w_]*)$') or ''
    if prefix == '' then return {}, '' end
    add_keys(out, environment, prefix, seen)
    add_keys(out, _G, prefix, seen)
    add_keys(out, { tycho = true }, prefix, seen)
  else
    local value = resolve(environment, path)
    if value == nil then return {}, prefix end
    local tensor = require 'tycho.tensor'
    local op = require 'tycho.op'
    if tensor.is_tensor(value) then
      add_keys(out, tensor.Tensor, prefix, seen)
      if separator == ':' then
        for _, name in ipairs(op.names()) do add_keys(out, { [name] = true }, prefix, seen) end
      else
        add_keys(out, { shape = true, ndim = true, dtype = true, device = true, grad = true }, prefix, seen)
      end
    else
      add_keys(out, value, prefix, seen)
      local meta = getmetatable(value)
      while type(meta) == 'table' and type(rawget(meta, '__index')) == 'table' do
        add_keys(out, meta.__index, prefix, seen)
        meta = getmetatable(meta.__index)
      end
      if path == 'tycho' then
        for _, name in ipairs(op.names()) do add_keys(out, { [name] = true }, prefix, seen) end
        add_keys(out, { nn = true, loss = true, optim = true, io = true, plot = true, generator = true, gradcheck = true }, prefix, seen)
      elseif path:match('^tycho%.[%w_]+$') then
        add_modules(out, path:match('%.(.*)$'), prefix, seen)
      end
    end
  end
  table.sort(out)
  return out, prefix
end

return M
