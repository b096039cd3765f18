-- Checks of training: one step's outputs, losses and gradients, several optimiser steps, and a batch that does not fill its last sequence.
local tycho = require 'tycho'
local npy = require 'tycho.io.npy'
local new_meters = require 'tycho.train.meters'
local nt_xent = require 'tycho.loss.nt_xent'
local metrics = require 'experiments.contextssl.metrics'
local objective = require 'experiments.contextssl.objective'
local training = require 'experiments.contextssl.training'
local folder = require 'spec.parity.folder'
local network = require 'spec.parity.model_network'

local M = {}

local OUTPUT = 5e-5 -- relative, of outputs and losses in train mode

-- Losses and scores of objective.losses' result. prefix: of the keys in the archive.
local function check_scalars(self, check, label, got, archive, expected, prefix, tolerance)
  local report = objective.report(got)
  local positive, negative = metrics.similarities(got.prediction)
  local values = { nt_xent = got.nt_xent, ce_feat = got.ce_feat, ce_pred = got.ce_pred, rotation_loss = got.rotation_loss,
    color_loss = got.color_loss, loss_all = got.loss, pos_sim = positive, neg_sim = negative }
  for key, value in pairs(values) do
    if rawget(expected, prefix .. key) then
      check.l2(label .. ' ' .. key, value, expected[prefix .. key], network.bound(self, tolerance, archive, prefix .. key))
    end
  end
  for _, key in ipairs { 'rot_r2', 'color_r2' } do
    if rawget(expected, prefix .. key) then
      check.abs(label .. ' ' .. key, report[key], expected[prefix .. key], network.bound(self, 10 * tolerance, archive, prefix .. key, 'abs'))
    end
  end
  return report
end

local function check_outputs(self, check, label, out, archive, expected, prefix, tolerance)
  local values = { feature = out.feature, prediction = out.prediction, pred_normalized = out.normalized, equiv_logits = out.equiv_logits,
    logits_feat = out.logits_feat, logits_pred = out.logits_pred }
  for key, value in pairs(values) do
    if rawget(expected, prefix .. key) then
      check.l2(label .. ' ' .. key, value, expected[prefix .. key], network.bound(self, tolerance, archive, prefix .. key))
    end
  end
end

-- ---- one step ----

-- case: nomask_ENVIRONMENT, or mask_ENVIRONMENT with the masks of mask_draws.npy. buffers: also check the batch norms' buffers.
function M.case(self, check, report, case, buffers)
  local archive, grads_archive = 'train_' .. case, 'grads_' .. case
  local expected = folder.arrays(('%s/%s.npz'):format(self.dir, archive))
  local grads = folder.arrays(('%s/%s.npz'):format(self.dir, grads_archive))
  local scalars = folder.json(self.dir .. '/train_scalars.json')[case]
  local masked, environment = case:match('^(%w+)_(%w+)$')
  local masks = masked == 'mask' and network.random_masks(self, npy.load(self.dir .. '/mask_draws.npy')) or network.pair_mask(self)
  local model, probe = network.build(self)
  local loss, out = objective.losses(model, probe, self.batch, environment, masks, self.config)
  local label = 'train ' .. case
  check_outputs(self, check, label, out, archive, expected, '', OUTPUT)
  local _, _, each = metrics.similarities(out.prediction)
  check.l2(label .. ' all_pos', each, expected.all_pos, network.bound(self, OUTPUT, archive, 'all_pos'))
  local result = check_scalars(self, check, label, out, archive, expected, '', OUTPUT)
  local called = scalars.evaluate_with_context_in_call_order
  for i, score in ipairs(#called > 0 and objective.context_scores(out, self.batch, environment, self.config) or {}) do
    for _, entry in ipairs(score.values) do
      local wanted = called[i]['r2_c=' .. entry[1]]
      check.abs(('%s context R2 %d at %d'):format(label, i, entry[1]), entry[2], wanted, 5e-4 * math.max(1, math.abs(wanted)))
    end
  end
  check.abs(label .. ' acc feat', result.acc_feat, scalars.acc[1], 1e-6)
  check.abs(label .. ' acc pred', result.acc_pred, scalars.acc[2], 1e-6)

  loss:backward()
  local none = {}
  for _, name in ipairs(scalars.grad_none) do none['model/' .. name] = true end
  for _, entry in ipairs(network.named(model, probe)) do
    local name, p = entry[1], entry[2]
    local gradient = ('grads %s %s'):format(case, name)
    if none[name] or not p.grad then
      report(gradient, none[name] and not p.grad and 'none, as expected' or none[name] and 'expected no gradient, there is one' or 'no gradient', 0,
        none[name] and not p.grad or false)
    else
      -- Max pooling may send one gradient to the other of two nearly equal inputs.
      local loose = name:match('enc%.conv1') or name:match('enc%.bn1')
      local bounds = { values = loose and 3e-3 or 2e-4, norm = loose and 3e-3 or 5e-5, sum = 5e-3 }
      if not network.check_digest(self, report, gradient, name, p.grad, grads_archive, grads, bounds) then
        report(gradient, 'the folder has no such gradient', 0, false)
      end
    end
  end
  if buffers then M.buffers(self, check, report, 'bn after 1 forward', model, 'bn_after_1_forward', 1e-5) end
end

-- The batch norms' running statistics against an archive.
function M.buffers(self, check, report, label, model, archive, tolerance)
  local path = ('%s/%s.npz'):format(self.dir, archive)
  if not folder.has(path) then return report(label, path .. ' is not there', 0, 'skip') end
  local expected = folder.arrays(path)
  for _, entry in ipairs(model:state_dict()) do
    local value = rawget(expected, entry[1])
    if value then check.l2(label .. ' ' .. entry[1], entry[2], value, network.bound(self, tolerance, archive, entry[1])) end
  end
end

-- ---- several optimiser steps ----

-- The reference's names of the running means of an epoch, and ours.
local meter_names = { ['Train loss'] = 'loss', ['Loss CE feat'] = 'ce_feat', ['Loss CE pred'] = 'ce_pred', ['Train acc feat'] = 'acc_feat',
  ['Train acc pred'] = 'acc_pred', ['Pos similarity'] = 'pos_sim', ['Neg similarity'] = 'neg_sim', ['Rotation loss'] = 'rot_mse',
  ['Rotation R2'] = 'rot_r2', ['Color loss'] = 'color_mse', ['Color R2'] = 'color_r2' }

-- A meter without a step is 0 there and absent here. R2 magnifies the difference of its outputs.
local function check_meters(check, label, meters, logged, tolerance)
  for wanted, meter in pairs(meter_names) do
    local expected = rawget(logged, wanted)
    if expected then
      check.abs(('%s meter %s'):format(label, meter), meters:mean(meter) or 0, expected,
        (meter:match('r2$') and 10 or 4) * tolerance * math.max(1, math.abs(expected)))
    end
  end
end

local function optimizer(parameters, settings)
  return tycho.optim.Adam(parameters, { lr = settings.lr, weight_decay = settings.weight_decay })
end

-- L2 of one part of a digest.
local function size_of(digest, name, suffix)
  local part = rawget(digest, name .. '/full' .. suffix) or rawget(digest, name .. '/val' .. suffix)
  return part and part:to('f64'):square():sum():sqrt():item() or 0
end

-- Parameters after i steps. Early Adam steps divide a gradient by its own size, so an element whose gradient is close to 0 may move the other
-- way: the change is known to 1 % after one step and to 15 % after more, and the value to that share of its change.
local function check_parameters(self, report, name, i, model, probe, initial)
  local archive = ('traj_%s_params_after%d'):format(name, i)
  local path = ('%s/%s.npz'):format(self.dir, archive)
  if not folder.has(path) then return end
  local digest = folder.arrays(path)
  local change, norm = i == 1 and 1e-2 or 0.15, i == 1 and 2e-4 or 1e-2
  for _, entry in ipairs(network.named(model, probe)) do
    local key, p = entry[1], entry[2]
    local label = ('params %s after %d %s'):format(name, i, key)
    local moved, size = size_of(digest, key, '_delta'), size_of(digest, key, '')
    local value = 2e-6 + (size > 0 and change * moved / size or 0)
    if not network.check_digest(self, report, label, key, p, archive, digest, { values = value, norm = value }) then
      report(label, 'the folder has no such parameter', 0, false)
    end
    local rounding = moved > 0 and 1.2e-7 * size / moved or math.huge
    if rounding < 0.1 then
      network.check_digest(self, report, label .. ' delta', key, p:to('f64') - initial[key], archive, digest,
        { values = change + rounding, norm = norm + rounding }, '_delta')
    end
  end
end

function M.trajectory(self, check, report, name)
  local plan = self.config._train_trajectories[name]
  local config = setmetatable({ learning_rate = plan.learning_rate, amp = 'off' }, { __index = self.config })
  local model, probe = network.build(self)
  local initial = {}
  for _, entry in ipairs(network.named(model, probe)) do initial[entry[1]] = entry[2]:to('f64') end
  local parts = { modules = { model = model, probe = probe }, optimizers = {
    optimizer = optimizer(model:parameters(), { lr = 0, weight_decay = config.weight_decay }),
    probe_optimizer = optimizer(probe:parameters(), config._note.online_optimizer) }, meters = new_meters() }
  local archive = ('traj_%s_steps'):format(name)
  local steps = folder.arrays(('%s/%s.npz'):format(self.dir, archive))
  local draws = plan.mask and npy.load(('%s/traj_%s_mask_draws.npy'):format(self.dir, name))
  local function tolerance(i, travelled) return travelled < 1e-6 and OUTPUT or i == 2 and 1e-3 or 1e-2 end
  local travelled = 0 -- sum of the learning rates so far
  for i, environment in ipairs(plan.envs) do
    local masks = draws and network.random_masks(self, draws[i - 1]) or network.pair_mask(self)
    local label, prefix = ('traj %s step %d'):format(name, i), ('step%d/'):format(i)
    local losses = training.policies.losses
    training.policies.losses = function(...)
      local loss, out = losses(...)
      check_outputs(self, check, label, out, archive, steps, prefix, tolerance(i, travelled))
      check_scalars(self, check, label, out, archive, steps, prefix, tolerance(i, travelled))
      return loss, out
    end
    local ok, message = pcall(training.step, parts, self.batch, environment, masks, config, plan.lr[i])
    training.policies.losses = losses
    if not ok then error(message, 0) end
    local logged = rawget(plan, 'wandb_log')
    if logged then check_meters(check, label, parts.meters, logged[i], tolerance(i, travelled)) end
    travelled = travelled + plan.lr[i]
    check_parameters(self, report, name, i, model, probe, initial)
  end
  M.buffers(self, check, report, 'bn ' .. name, model, ('traj_%s_bn_after%d'):format(name, #plan.envs), travelled < 1e-6 and 1e-5 or 2e-3)
end

-- ---- padding ----

-- A batch whose rows are not a multiple of block_size: padded rows stay, as the reference leaves them.
function M.padding(self, check, report)
  local expected = folder.arrays(self.dir .. '/train_padding.npz')
  local rows = expected.feature:size(0)
  local model = network.build(self)
  local f = model.enc(self.batch.x:narrow(0, 0, rows))
  local p = model.predictor:padded(f, self.batch.r:narrow(0, 0, rows / 2), network.pair_mask(self))
  local function l2(name, got, key)
    check.l2('padding ' .. name, got, expected[key], network.bound(self, 2e-4, 'train_padding', key))
  end
  l2('feature', f, 'feature')
  report('padding rows', p:size(0), expected.prediction:size(0), p:size(0) == expected.prediction:size(0))
  l2('prediction', p, 'prediction')
  local loss = nt_xent(p, self.config.temperature)
  l2('nt_xent', loss, 'nt_xent')
  loss:backward()
  for _, entry in ipairs(model:named_parameters()) do
    local key = ('grad/model/%s/full'):format(entry[1])
    if rawget(expected, key) then l2('gradient ' .. entry[1], entry[2].grad, key) end
  end
end

return M
