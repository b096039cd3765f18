-- Checks the whole network: masks, schedule, forward, losses, gradients, optimiser steps, padding, memory, evaluation, the predictor alone and the
-- checkpoints. Sizes, settings, cases and names are those of the folder's files.
local lfs = require 'lfs'
local tycho = require 'tycho'
local compare = require 'spec.parity.compare'
local folder = require 'spec.parity.folder'
local frozen = require 'spec.parity.model_frozen'
local network = require 'spec.parity.model_network'
local parts = require 'spec.parity.model_parts'
local training = require 'spec.parity.model_training'

local function sorted_keys(t)
  local keys = {}
  for key in pairs(t) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

return function(dir, report)
  local check = compare.reporter(report)
  local self = network.open(dir)
  -- fn(self, ...) reads the files named after it.
  local function run(name, files, fn, ...)
    local arguments = { ... }
    for i, file in ipairs(files) do files[i] = dir .. '/' .. file end
    compare.guard(report, name, function()
      tycho.scope(function() fn(self, check, report, unpack(arguments)) end)
    end, files)
  end
  run('masks', { 'pair_mask.npy', 'mask_draws.npy', 'masks.npy' }, parts.masks)
  run('lr_schedule', { 'lr_schedule.npy' }, parts.schedule)
  run('ref_small', { 'ref_small.pt' }, parts.checkpoint, 'ref_small.pt', 'model')
  run('ref_small_online', { 'ref_small_online.pt' }, parts.checkpoint, 'ref_small_online.pt', 'probe')
  run('train', { 'train_scalars.json' }, function()
    for i, case in ipairs(sorted_keys(folder.json(dir .. '/train_scalars.json'))) do
      run('train ' .. case, { ('train_%s.npz'):format(case), ('grads_%s.npz'):format(case) }, training.case, case, i == 1)
    end
  end)
  for _, name in ipairs(sorted_keys(self.config._train_trajectories)) do
    run('traj ' .. name, { ('traj_%s_steps.npz'):format(name) }, training.trajectory, name)
  end
  run('eval', { 'eval_outputs.npz', 'eval_kv_cache.npz', 'cache.npz' }, frozen.outputs)
  run('evaluation', { 'evaluation_with_cache.json', 'cache.npz' }, frozen.cached_evaluation)
  run('padding', { 'train_padding.npz' }, training.padding)
  local units = {}
  for file in lfs.dir(dir) do units[file:match('^(gpt_unit_.*)%.npz$') or ''] = true end
  units[''] = nil
  if not next(units) then compare.skip(report, 'gpt_unit', dir .. ' has no gpt_unit_*.npz') end
  for _, name in ipairs(sorted_keys(units)) do run(name, {}, parts.unit, name) end
end
