-- The full state of a training: modules, optimisers, meters and a table of numbers, in one safetensors file written whole or not at all.
-- Equal states give equal files. And weights alone, from whatever file holds them.
local tensor = require 'tycho.tensor'
local json = require 'tycho.io.json'
local python = require 'tycho.io.python'
local safetensors = require 'tycho.io.safetensors'
local tensors_file = require 'tycho.io.tensors'

local M = {}

-- parts: {modules = {name = module}, optimizers = {name = optimiser}, meters = meters or nil, state = table of plain values}.
function M.save(path, parts)
  local tensors = {}
  local function add(group, name, t) tensors[group .. '/' .. name] = t end
  for group, module in pairs(parts.modules) do
    for _, entry in ipairs(module:state_dict()) do add(group, entry[1], entry[2]) end
  end
  for group, optimizer in pairs(parts.optimizers) do
    for name, t in pairs(optimizer:state_dict()) do add(group, name, t) end
  end
  for name, t in pairs(parts.meters and parts.meters:state_dict() or {}) do add('meters', name, t) end
  safetensors.save(path, tensors, { state = json.encode(parts.state), checksum = true })
end

-- Loads into the modules, optimisers and meters of parts; returns the state. accept(state) [opt] is asked first and may raise.
function M.load(path, parts, accept)
  local tensors, metadata = safetensors.load(path)
  local groups = {}
  for key, t in tensors:pairs() do
    local group, name = key:match('^([^/]+)/(.*)$')
    if not group then error(('%s is not a training checkpoint of this project: unexpected tensor %s'):format(path, key), 0) end
    groups[group] = groups[group] or {}
    groups[group][name] = t
  end
  if not (metadata and metadata.state) then
    error(('%s is not a training checkpoint of this project: no state in its metadata'):format(path), 0)
  end
  safetensors.check(path, tensors, metadata)
  for name in pairs(groups) do
    if not (parts.modules[name] or parts.optimizers[name] or name == 'meters') then
      error(("%s is of another training: nothing here takes the tensors of its '%s'"):format(path, name), 0)
    end
  end
  local state = json.decode(metadata.state, path)
  if accept then accept(state) end
  for name, module in pairs(parts.modules) do module:load_state_dict(groups[name] or {}, path) end
  for name, optimizer in pairs(parts.optimizers) do optimizer:load_state_dict(groups[name] or {}, path) end
  if parts.meters then parts.meters:load_state_dict(groups.meters or {}) end
  return state
end

-- The state dict in the value of a file: a Dict of tensors by name; itself, or what lies under one of these keys, or names that begin with
-- 'model/' as M.save writes them.
local function find_state(value, path)
  if python.is_dict(value) then
    for _, key in ipairs { 'state_dict', 'model_state_dict', 'model' } do
      if python.is_dict(value:get(key)) then return find_state(value:get(key), path) end
    end
    local all, model = python.dict(), python.dict()
    for key, t in value:pairs() do
      if tensor.is_tensor(t) and type(key) == 'string' then
        all:set(key, t)
        if key:match('^model/') then model:set(key:sub(7), t) end
      end
    end
    if all:len() > 0 then return model:len() > 0 and model or all end
  end
  error(("%s holds no state dict: expected tensors by name, perhaps under 'state_dict' or 'model'"):format(path), 0)
end

-- The state dict in a file (.pt, .safetensors or .npz), alone or inside a larger checkpoint: a Dict of tensors by name.
function M.read_weights(path) return find_state(tensors_file.load(path), path) end

-- Loads it into module; see Module:load_state_dict for the names. Returns module.
function M.load_weights(path, module) return module:load_state_dict(M.read_weights(path), path) end

return M
