-- The full state of a training: modules, optimisers and a table of numbers, in one safetensors file written whole or not at all.
local json = require 'dkjson'
local safetensors = require 'tycho.io.safetensors'

local M = {}

-- parts: {modules = {name = module}, optimizers = {name = optimiser}, state = table of plain values}.
function M.save(path, parts)
  local tensors = {}
  for name, module in pairs(parts.modules) do
    for _, entry in ipairs(module:state_dict()) do tensors[name .. '/' .. entry[1]] = entry[2] end
  end
  for name, optimizer in pairs(parts.optimizers) do
    for key, t in pairs(optimizer:state_dict()) do tensors[name .. '/' .. key] = t end
  end
  safetensors.save(path, tensors, { state = json.encode(parts.state) })
end

-- Loads into the modules and optimisers of parts; returns the state.
function M.load(path, parts)
  local tensors, metadata = safetensors.load(path)
  local groups = {}
  for key, t in tensors:pairs() do
    local group, name = key:match('^([^/]+)/(.*)$')
    if not group then error(('%s is not a training checkpoint of this project: unexpected tensor %s'):format(path, key), 0) end
    groups[group] = groups[group] or {}
    groups[group][name] = t
  end
  local state = metadata and json.decode(metadata.state or '')
  if not state then error(('%s is not a training checkpoint of this project: no state in its metadata'):format(path), 0) end
  for name, module in pairs(parts.modules) do module:load_state_dict(groups[name] or {}, path) end
  for name, optimizer in pairs(parts.optimizers) do optimizer:load_state_dict(groups[name] or {}) end
  return state
end

return M
