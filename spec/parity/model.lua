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

-- A ReLU or a max pool that meets a tie within rounding sends a whole gradient the one way or the other, and an early Adam step goes by a
-- gradient's sign alone. So while a check of fn(report) has missed on every run, fn is run again with images that differ in their last bits: what
-- holds on one run met a tie on the others; a fault misses on all of them.
local RUNS = 8
local function without_ties(self, report, name, fn)
  local images, order, lines, attempt = self.batch.x, {}, {}, 0
  local function record(check, ...)
    if not lines[check] then order[#order + 1] = check end
    if not lines[check] or not lines[check][3] then lines[check] = { ... } end
  end
  local function misses()
    for _, check in ipairs(order) do
      if not lines[check][3] then return true end
    end
  end
  repeat
    attempt = attempt + 1
    if attempt > 1 then
      self.batch.x = tycho.no_grad(function() return images + images * tycho.generator(attempt):normal_tensor(images.shape) * 3e-7 end)
    end
    compare.guard(record, name, function() tycho.scope(fn, record) end)
    self.batch.x = images
  until attempt == RUNS or not misses()
  for _, check in ipairs(order) do report(check, unpack(lines[check], 1, 3)) end
  if attempt > 1 then compare.skip(report, name, 'as given it meets ties; some of it was judged on images that differ in their last bits') end
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
  local function settle(name, files, fn, ...)
    local arguments = { ... }
    run(name, files, function()
      without_ties(self, report, name, function(record) fn(self, compare.reporter(record), record, unpack(arguments)) end)
    end)
  end
  run('train', { 'train_scalars.json' }, function()
    for i, case in ipairs(sorted_keys(folder.json(dir .. '/train_scalars.json'))) do
      settle('train ' .. case, { ('train_%s.npz'):format(case), ('grads_%s.npz'):format(case) }, training.case, case, i == 1)
    end
  end)
  for _, name in ipairs(sorted_keys(self.config._train_trajectories)) do
    settle('traj ' .. name, { ('traj_%s_steps.npz'):format(name) }, training.trajectory, name)
  end
  run('eval', { 'eval_outputs.npz', 'eval_kv_cache.npz', 'cache.npz' }, frozen.outputs)
  run('evaluation', { 'evaluation_with_cache.json', 'cache.npz' }, frozen.cached_evaluation)
  settle('padding', { 'train_padding.npz' }, training.padding)
  local units = {}
  for file in lfs.dir(dir) do units[file:match('^(gpt_unit_.*)%.npz$') or ''] = true end
  units[''] = nil
  if not next(units) then compare.skip(report, 'gpt_unit', dir .. ' has no gpt_unit_*.npz') end
  for _, name in ipairs(sorted_keys(units)) do run(name, {}, parts.unit, name) end
end
