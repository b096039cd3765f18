-- A saved model, for the evaluations and for fine-tuning: finds the file, checks the settings against its weights, loads them. The file is the
-- reference's or ours, a state dict (every save_interval epochs of main.lua) or a whole training checkpoint.
local lfs = require 'lfs'
local checkpoint = require 'tycho.train.checkpoint'
local config_file = require 'tycho.config'
local nearest = require 'tycho.nearest'
local ask = require 'experiments.contextssl.ask'
local models = require 'experiments.contextssl.model'

local M = {}

-- Path of load_model in pretrained_model_dir; an absolute load_model stands for itself.
function M.path(config)
  local name = config.load_model
  if name:sub(1, 1) == '/' then return config_file.require_path(config, 'load_model') end
  local folder = config_file.require_path(config, 'pretrained_model_dir'):gsub('(.)/+$', '%1')
  local path = folder .. '/' .. name
  if lfs.attributes(path, 'mode') == 'file' then return path end
  local names = {}
  for entry in lfs.dir(folder) do
    if entry:match('%.pth?$') or entry:match('%.safetensors$') then names[#names + 1] = entry end
  end
  table.sort(names)
  local near = nearest(name, names)
  error(('load_model=%s: there is no such file in %s; %s'):format(name, folder, near and ('did you mean %s?'):format(near)
    or #names > 0 and 'there are ' .. table.concat(names, ', ', 1, math.min(#names, 10)) or 'it holds no .pt or .safetensors file'), 0)
end

-- What the weights say of the settings that made them, as a list of {key, value}.
local function settings_of(weights)
  local function size(name, dim) return weights[name] and weights[name].ndim > dim and weights[name]:size(dim) end
  local function blocks(prefix)
    local n = 0
    while weights[('%s.%d.conv1.weight'):format(prefix, n)] or weights[('%s.%d.ln_1.weight'):format(prefix, n)] do n = n + 1 end
    return n
  end
  local read_out = size('predictor._read_out.weight', 0)
  return {
    { 'backbone', weights['enc.layer1.0.conv3.weight'] and 'resnet50' or blocks 'enc.layer3' == 6 and 'resnet34' or 'resnet18' },
    { 'width', size('enc.conv1.weight', 0) },
    { 'projection_dim', read_out },
    { 'n_embd', size('predictor._read_in.weight', 0) },
    { 'n_layer', blocks 'predictor.transformer.h' },
    { 'is_invariant', size('predictor._read_in.weight', 1) == read_out },
  }
end

-- Why the weights are not those of ContextSSL with these settings, or nil.
local function problem_of(weights, config, path)
  if not weights['enc.conv1.weight'] or not weights['predictor._read_in.weight'] then
    return ('%s is not a saved ContextSSL model: expected a state dict with enc.* and predictor.*'):format(path)
  end
  local saved, set = {}, {}
  for _, entry in ipairs(settings_of(weights)) do
    local key, value = unpack(entry)
    if value ~= nil and config[key] ~= value then
      saved[#saved + 1] = ('%s=%s'):format(key, tostring(value))
      set[#set + 1] = ('%s=%s'):format(key, tostring(config[key]))
    end
  end
  return #saved > 0 and ('%s holds a model of %s, the settings say %s; write %s'):format(path, table.concat(saved, ', '), table.concat(set, ', '),
    table.concat(saved, ' ')) or nil
end

-- The model that policies.model makes of config, with the weights of path. Raises what does not fit: of ContextSSL, the settings.
function M.load(path, config)
  local state, weights = checkpoint.read_weights(path), {}
  for name, t in state:pairs() do weights[name:gsub('^module%.', '')] = t end
  local problem = problem_of(weights, config, path)
  local is_made, model = pcall(ask, 'model', config)
  local is_own = is_made and getmetatable(model) ~= models.ContextSSL.instance
  if problem and not is_own then error(problem, 0) end
  if not is_made then error(model, 0) end
  return model:load_state_dict(state, path)
end

return M
