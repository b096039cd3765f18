-- A training of a moment, for specs that compare whole runs on a device.
local data = require 'experiments.contextssl.data'
local policies = require 'experiments.contextssl.policies'
local toy3d = require 'experiments.contextssl.toy3d'
local training = require 'experiments.contextssl.training'
local quietly = require 'spec.quietly'

local M = {}

-- Renders its data into folder.
function M.render(folder, objects)
  quietly(toy3d.render, { out = folder .. '/toy3d', objects = objects, val_objects = 4, views = 4, size = 16, classes = 4, seed = 1 })
end

-- The settings of such a training with its runs below folder, as each of the tables after it changes them.
function M.settings(folder, ...)
  local config = {
    backbone = 'resnet18', width = 2, projection_dim = 16, n_embd = 8, n_layer = 1, n_head = 2, block_size = 4, init_std = 0.1,
    aug_init_gain = 1, is_invariant = false, batch_size = 4, epochs = 2, warmup_epochs = 1, learning_rate = 0.032, weight_decay = 1e-3,
    temperature = 0.1, weight_equiv_loss = 5, env_ratio = { 0.5, 0.5, 0 }, random_mask = true, mask_prob = 0.5, nt_xent_clamp = true,
    log_interval = 100, save_interval = 1, checkpoint_minutes = 5, seed = 3, context_seed = 0, cache_type = 'train', eval_normalize = true,
    out = folder .. '/runs',
  }
  for i = 1, select('#', ...) do
    for key, value in pairs((select(i, ...)) or {}) do config[key] = value end
  end
  return config
end

-- Trains on a device with some settings changed; returns what training.run does.
function M.run(folder, where, changes)
  local config = M.settings(folder, { device = where }, changes)
  local dataset = data.open { device = where, data_dir = folder .. '/toy3d', split = 'train', resolution = 16, image_mean = { 0.3, 0.3, 0.3 },
    image_std = { 0.17, 0.17, 0.17 } }
  return quietly(training.run, config, dataset, { name = 'spec' })
end

-- fn(...) while some policies are others.
function M.with(replaced, fn, ...)
  local before = {}
  for name, value in pairs(replaced) do before[name], policies[name] = policies[name], value end
  local results = { pcall(fn, ...) }
  for name, value in pairs(before) do policies[name] = value end
  if not results[1] then error(results[2], 0) end
  return unpack(results, 2, table.maxn(results))
end

-- A policy of losses: gradients of so small a network are large, and at the first loss scale they would not fit float16.
local losses = policies.losses
function M.smaller(...)
  local loss, step = losses(...)
  return loss * 2 ^ -10, step
end

return M
