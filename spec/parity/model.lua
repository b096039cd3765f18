-- Checks the whole network: forward, losses, gradients, optimiser steps, schedule, masks, padding, memory and evaluation. Sizes and settings come
-- from the folder's config.json; parameters from its table of patterns.
local lfs = require 'lfs'
local tycho = require 'tycho'
local json = require 'tycho.io.json'
local npy = require 'tycho.io.npy'
local npz = require 'tycho.io.npz'
local new_meters = require 'tycho.train.meters'
local schedule = require 'tycho.train.schedule'
local models = require 'experiments.contextssl.model'
local context = require 'experiments.contextssl.context'
local context_mask = require 'experiments.contextssl.context_mask'
local environments = require 'experiments.contextssl.environments'
local metrics = require 'experiments.contextssl.metrics'
local monitor = require 'experiments.contextssl.monitor'
local objective = require 'experiments.contextssl.objective'
local training = require 'experiments.contextssl.training'
local compare = require 'spec.parity.compare'
local pattern = require 'spec.parity.pattern'

local ENVIRONMENTS = { 'rot', 'color', 'rotcolor' }

-- ---- set-up ----

local function interleave(x, xv)
  return tycho.stack({ x, xv }, 1):reshape { 2 * x:size(0), x:size(1), x:size(2), x:size(3) }
end

local function open(dir)
  local self = { dir = dir, config = json.load(dir .. '/config.json'), table = json.load(dir .. '/param_table.json'),
    base = npy.load(dir .. '/pattern_base.npy'), indices = npz.load(dir .. '/digest_indices.npz') }
  self.classes = self.config._note.n_classes
  self.config.width = self.table['enc.conv1.weight'].shape[1]
  self.config.nt_xent_clamp = true
  local a = npz.load(dir .. '/batch.npz')
  self.batch = { x = interleave(a.x, a.xv), r = a.r, latents = a.i_latent, y = a.y }
  return self
end

-- A fresh model and probe with the folder's parameters.
local function build(self)
  local model = models.ContextSSL(self.config)
  local probe = models.OnlineProbe(model.enc.features, self.config.projection_dim, self.classes)
  local values, probe_values = {}, {}
  for name, rule in pairs(self.table) do
    local online = name:match('^online/(.*)$')
    if online then
      probe_values[online] = pattern(self.base, rule)
    else
      values[name] = pattern(self.base, rule)
    end
  end
  for _, entry in ipairs(model:state_dict()) do
    if entry[1]:match('num_batches_tracked$') then values[entry[1]] = values[entry[1]] or tycho.zeros({}, 'i64') end
  end
  return model:load_state_dict(values, 'param_table.json'), probe:load_state_dict(probe_values, 'param_table.json')
end

local function named(model, probe)
  local list = {}
  for _, entry in ipairs(model:named_parameters()) do list[#list + 1] = { 'model/' .. entry[1], entry[2] } end
  for _, entry in ipairs(probe:named_parameters()) do list[#list + 1] = { 'online/' .. entry[1], entry[2] } end
  return list
end

local function pair_masks(self)
  return context_mask.pair_mask(self.config.block_size)
end

local function random_masks(self, draws)
  local masks = {}
  for layer = 0, draws:size(0) - 1 do
    masks[layer + 1] = context_mask.random_mask(self.config.block_size, self.config._note.mask_prob_used or self.config.mask_prob,
      draws[layer]:contiguous())
  end
  return masks
end

-- Pieces of a digest for a tensor: full, or norm, sum and chosen values.
local function check_digest(self, check, label, name, got, digest, bounds, suffix)
  suffix = suffix or ''
  local full = digest[name .. '/full' .. suffix]
  local flat = got:contiguous():reshape { -1 }
  if full then
    check.l2(label, flat, full:reshape { -1 }, bounds.values)
    return true
  end
  local norm = digest[name .. '/norm' .. suffix]
  if not norm then return false end
  local wide = flat:to('f64')
  local own = wide:square():sum():sqrt():item()
  check.abs(label .. ' norm', own / norm:item(), 1, bounds.norm)
  local sum = digest[name .. '/sum' .. suffix]
  if sum and bounds.sum then check.abs(label .. ' sum', (wide:sum():item() - sum:item()) / norm:item(), 0, bounds.sum) end
  check.l2(label .. ' values', flat:index_select(self.indices[name]), digest[name .. '/val' .. suffix], bounds.values)
  return true
end

-- ---- one step ----

local function check_scalars(check, label, got, expected, tolerance)
  for _, key in ipairs { 'nt_xent', 'ce_feat', 'ce_pred', 'rotation_loss', 'color_loss' } do
    if expected[key] then check.l2(('%s %s'):format(label, key), got[key], expected[key], tolerance) end
  end
  if expected.loss_all then check.l2(label .. ' loss_all', got.loss, expected.loss_all, tolerance) end
  local positive, negative = metrics.similarities(got.prediction)
  check.l2(label .. ' pos_sim', positive, expected.pos_sim, tolerance)
  check.l2(label .. ' neg_sim', negative, expected.neg_sim, tolerance)
  local report = objective.report(got)
  if expected.rot_r2 then check.abs(label .. ' rot_r2', report.rot_r2, expected.rot_r2, math.max(tolerance, 5e-5) * 10) end
  if expected.color_r2 then check.abs(label .. ' color_r2', report.color_r2, expected.color_r2, math.max(tolerance, 5e-5) * 10) end
end

local function check_case(self, case, environment, masks, report, check)
  local expected = npz.load(('%s/train_%s.npz'):format(self.dir, case))
  local grads = npz.load(('%s/grads_%s.npz'):format(self.dir, case))
  local scalars = json.load(self.dir .. '/train_scalars.json')[case]
  local model, probe = build(self)
  model:train()
  local loss, out = objective.losses(model, probe, self.batch, environment, masks, self.config)
  local label = 'train ' .. case
  for _, key in ipairs { 'feature', 'prediction', 'equiv_logits', 'logits_feat', 'logits_pred' } do
    check.l2(label .. ' ' .. key, out[key], expected[key], 5e-5)
  end
  check.l2(label .. ' pred_normalized', out.normalized, expected.pred_normalized, 5e-5)
  local _, _, each = metrics.similarities(out.prediction)
  check.l2(label .. ' all_pos', each, expected.all_pos, 5e-5)
  check_scalars(check, label, out, expected, 5e-5)
  for i, score in ipairs(objective.context_scores(out, self.batch, environment, self.config)) do
    local wanted = scalars.evaluate_with_context_in_call_order[i]
    for _, entry in ipairs(score.values) do
      check.abs(('%s context R2 %d at %d'):format(label, i, entry[1]), entry[2], wanted['r2_c=' .. entry[1]], 5e-4)
    end
  end
  local result = objective.report(out)
  check.abs(label .. ' acc feat', result.acc_feat, scalars.acc[1], 1e-6)
  check.abs(label .. ' acc pred', result.acc_pred, scalars.acc[2], 1e-6)
  loss:backward()
  local none = {}
  for _, name in ipairs(scalars.grad_none) do none['model/' .. name] = true end
  for _, entry in ipairs(named(model, probe)) do
    local name, p = entry[1], entry[2]
    local gradient = ('grads %s %s'):format(case, name)
    if not p.grad then
      report(gradient, none[name] and 'none, as expected' or 'no gradient', 0, none[name] or false)
    else
      -- Max pooling may send one gradient to the other of two nearly equal inputs.
      local loose = name:match('enc%.conv1') or name:match('enc%.bn1')
      if not check_digest(self, check, gradient, name, p.grad, grads, { values = loose and 3e-3 or 2e-4, norm = loose and 3e-3 or 5e-5, sum = 5e-3 })
      then report(gradient, 'the folder has no such gradient', 0, false) end
    end
  end
  if case == 'nomask_rot' then
    local buffers = npz.load(self.dir .. '/bn_after_1_forward.npz')
    for _, entry in ipairs(model:state_dict()) do
      if buffers[entry[1]] then check.l2('bn after 1 forward ' .. entry[1], entry[2], buffers[entry[1]], 1e-5) end
    end
  end
end

-- ---- three optimiser steps ----

local bounds_after = {
  T1 = { [1] = { full = { values = 2e-6, norm = 2e-6 } }, [3] = { full = { values = 2e-6, norm = 2e-6 } } },
  other = {
    [1] = { full = { values = 2e-5, norm = 2e-5 }, delta = { values = 1e-2, norm = 2e-4 } },
    [3] = { full = { values = 2e-3, norm = 2e-3 }, delta = { values = 0.15, norm = 1e-2 } },
  },
}

-- The reference's names of the running means of an epoch, and ours.
local meter_names = { ['Train loss'] = 'loss', ['Loss CE feat'] = 'ce_feat', ['Loss CE pred'] = 'ce_pred', ['Train acc feat'] = 'acc_feat',
  ['Train acc pred'] = 'acc_pred', ['Pos similarity'] = 'pos_sim', ['Neg similarity'] = 'neg_sim', ['Rotation loss'] = 'rot_mse',
  ['Rotation R2'] = 'rot_r2', ['Color loss'] = 'color_mse', ['Color R2'] = 'color_r2' }

-- A parameter that no step moves has no direction to compare.
local function moves(digest, name)
  local delta = digest[name .. '/norm_delta']
  return not delta or delta:item() > 0
end

local function check_trajectory(self, name, check)
  local plan = self.config._train_trajectories[name]
  local config = setmetatable({ learning_rate = plan.learning_rate }, { __index = self.config })
  local model, probe = build(self)
  model:train()
  local initial = {}
  for _, entry in ipairs(named(model, probe)) do initial[entry[1]] = entry[2]:to('f64') end
  local parts = { modules = { model = model, probe = probe }, optimizers = {
    optimizer = tycho.optim.Adam(model:parameters(), { weight_decay = config.weight_decay }),
    probe_optimizer = tycho.optim.Adam(probe:parameters(), { lr = config._note.online_optimizer.lr,
      weight_decay = config._note.online_optimizer.weight_decay }) }, meters = new_meters() }
  local steps = npz.load(('%s/traj_%s_steps.npz'):format(self.dir, name))
  local draws = plan.mask and npy.load(('%s/traj_%s_mask_draws.npy'):format(self.dir, name))
  for i, environment in ipairs(plan.envs) do
    local masks = draws and random_masks(self, draws[i - 1]) or pair_masks(self)
    local tolerance = name ~= 'T1' and i == 3 and 1e-2 or name ~= 'T1' and i == 2 and 1e-3 or 5e-5
    local label = ('traj %s step %d'):format(name, i)
    local expected = {}
    for key, value in pairs(steps) do
      local step, rest = key:match('^step(%d+)/(.*)$')
      if tonumber(step) == i then expected[rest] = value end
    end
    local losses = training.policies.losses
    training.policies.losses = function(...)
      local loss, out = losses(...)
      check.l2(label .. ' prediction', out.prediction, expected.prediction, tolerance)
      check.l2(label .. ' equiv_logits', out.equiv_logits, expected.equiv_logits, tolerance)
      check_scalars(check, label, out, expected, tolerance)
      return loss, out
    end
    local ok, message = pcall(training.step, parts, self.batch, environment, masks, config, plan.lr[i])
    training.policies.losses = losses
    if not ok then error(message, 0) end
    for wanted, meter in pairs(meter_names) do
      -- A meter without a step is 0 there and absent here. R2 magnifies the difference of its outputs.
      check.abs(('%s meter %s'):format(label, meter), parts.meters:mean(meter) or 0, plan.wandb_log[i][wanted],
        meter:match('r2$') and 10 * tolerance or 4 * tolerance)
    end
    local bounds = (bounds_after[name] or bounds_after.other)[i]
    if bounds then
      local digest = npz.load(('%s/traj_%s_params_after%d.npz'):format(self.dir, name, i))
      for _, entry in ipairs(named(model, probe)) do
        local key, p = entry[1], entry[2]
        local after = ('params %s after %d %s'):format(name, i, key)
        if check_digest(self, check, after, key, p, digest, bounds.full) and bounds.delta and moves(digest, key) then
          check_digest(self, check, after .. ' delta', key, p:to('f64') - initial[key], digest, bounds.delta, '_delta')
        end
      end
    end
  end
  local buffers = npz.load(('%s/traj_%s_bn_after3.npz'):format(self.dir, name))
  for _, entry in ipairs(model:state_dict()) do
    if buffers[entry[1]] then check.l2(('bn %s after 3 %s'):format(name, entry[1]), entry[2], buffers[entry[1]], name == 'T1' and 1e-5 or 2e-3) end
  end
end

-- ---- frozen model ----

local function cases(archive, first)
  local out = {}
  for key in pairs(archive) do
    local mode, c = key:match('^' .. first .. '(%w+)/c(%d+)$')
    if mode then out[#out + 1] = { key = key, mode = mode, c = tonumber(c) } end
  end
  table.sort(out, function(a, b) return a.key < b.key end)
  return out
end

-- What the training evaluates with a fixed context: R2 of the read-out by mode and context length.
local function check_cached_evaluation(self, model, examples, check)
  local expected = json.load(self.dir .. '/evaluation_with_cache.json')
  local states = self.batch.latents:reshape { -1, self.batch.latents:size(2) }
  model:evaluating(function()
    local f = model.enc(self.batch.x)
    for mode, want in pairs(expected) do
      local memory = context.encode(model, examples, mode)
      for key, scores in pairs(want.r2_unrounded) do
        local z = monitor.embed(model, f, self.batch.r, mode, context.cut(memory, tonumber(key:match('%d+'))))
        local got = monitor.scores(model.aug_predictor(z:normalize()), states, mode)
        for name, score in pairs(scores) do
          local attribute, token = name:match('^(%w+)_(.*)$')
          check.abs(('evaluation %s %s %s'):format(mode, key, name), got[token .. '/' .. (attribute == 'rot' and 'rotation' or 'color')],
            score, 1e-5)
        end
      end
    end
  end)
end

local function check_evaluation(self, check)
  local expected = npz.load(self.dir .. '/eval_outputs.npz')
  local cache, a = npz.load(self.dir .. '/cache.npz'), self.batch
  local model, probe = build(self)
  local examples = { x = cache.cache_x, r = cache.cache_r }
  model:evaluating(function()
    local f = model.enc(a.x)
    check.l2('eval feature', f, expected.feature, 1e-5)
    local memories = {}
    local function memory(mode, c)
      memories[mode] = memories[mode] or context.encode(model, examples, mode)
      return context.cut(memories[mode], c)
    end
    local kv = npz.load(self.dir .. '/eval_kv_cache.npz')
    for key, value in pairs(kv) do
      local mode, c, what, layer = key:match('^(%w+)/c(%d+)/([kv])(%d+)$')
      if mode then check.l2('eval memory ' .. key, memory(mode, tonumber(c))[tonumber(layer) + 1][what], value[0], 1e-5) end
    end
    for _, case in ipairs(cases(expected, 'rplus/')) do
      check.l2('eval ' .. case.key, context.embed(model, f, nil, memory(case.mode, case.c)), expected[case.key], 1e-5)
    end
    for _, case in ipairs(cases(expected, 'train/')) do
      local r = environments.restrict(a.r, case.mode)
      local actions = tycho.stack({ r, tycho.zeros_like(r) }, 1):reshape { f:size(0), r:size(1) }
      check.l2('eval ' .. case.key, context.embed(model, f, actions, memory(case.mode, case.c)), expected[case.key], 1e-5)
    end
    for _, mode in ipairs { 'rot', 'color', 'none' } do
      local p = model.predictor(f, environments.restrict(a.r, mode), pair_masks(self))
      check.l2('eval forward/' .. mode, p, expected['forward/' .. mode], 1e-5)
      if mode == 'rot' then
        local feat, pred = probe(f, p)
        check.l2('eval online feat', feat, expected['online/feat'], 1e-5)
        check.l2('eval online pred', pred, expected['online/pred'], 1e-5)
      end
    end
    check.l2('eval pad feature', f:narrow(0, 0, expected['pad/feature']:size(0)), expected['pad/feature'], 1e-5)
    for _, key in ipairs { 'pad', 'short' } do
      local rows = key == 'pad' and expected['pad/feature']:size(0) or self.config.block_size / 2
      local padded = model.predictor:padded(f:narrow(0, 0, rows), environments.restrict(a.r, 'rot'):narrow(0, 0, rows / 2), pair_masks(self))
      check.l2(('eval %s prediction'):format(key), padded, expected[key .. '/prediction'], 1e-5)
    end
  end)
  check_cached_evaluation(self, model, examples, check)
end

-- ---- smaller parts ----

local function check_masks(self, check)
  check.abs('pair_mask', context_mask.pair_mask(self.config.block_size), npy.load(self.dir .. '/pair_mask.npy'), 0)
  local function stacked(draws) return tycho.stack(random_masks(self, draws)) end
  check.abs('masks', stacked(npy.load(self.dir .. '/mask_draws.npy')), npy.load(self.dir .. '/masks.npy'), 0)
  for name, plan in pairs(self.config._train_trajectories) do
    if plan.mask then
      local draws = npy.load(('%s/traj_%s_mask_draws.npy'):format(self.dir, name))
      local expected = npy.load(('%s/traj_%s_masks.npy'):format(self.dir, name))
      for i = 0, draws:size(0) - 1 do check.abs(('traj %s masks step %d'):format(name, i + 1), stacked(draws[i]), expected[i], 0) end
    end
  end
end

local function check_schedule(self, check)
  local expected = npy.load(self.dir .. '/lr_schedule.npy')
  local c, length = self.config, self.config._note.loader_length
  local base, lr = c.learning_rate * c.batch_size / 256, {}
  for it = 0, c.epochs * length - 1 do
    lr[it + 1] = schedule.warmup_cosine(base, it, c.warmup_epochs * length, c.epochs * length)
  end
  check.l2('lr_schedule', tycho.tensor(lr, 'f64'), expected, 1e-12)
end

local function check_padding(self, report, check)
  local expected = npz.load(self.dir .. '/train_padding.npz')
  local rows = expected.feature:size(0)
  local model = build(self)
  model:train()
  local f = model.enc(self.batch.x:narrow(0, 0, rows))
  local p = model.predictor:padded(f, self.batch.r:narrow(0, 0, rows / 2), pair_masks(self))
  check.l2('padding feature', f, expected.feature, 2e-4)
  check.l2('padding prediction', p, expected.prediction, 2e-4)
  local loss = require 'tycho.loss.nt_xent'(p, self.config.temperature)
  check.l2('padding nt_xent', loss, expected.nt_xent, 2e-4)
  loss:backward()
  for _, entry in ipairs(model:named_parameters()) do
    local digest = expected['grad/model/' .. entry[1] .. '/full']
    if digest then check.l2('padding gradient ' .. entry[1], entry[2].grad, digest, 2e-4) end
  end
  report('padding rows', p:size(0), expected.prediction:size(0), p:size(0) == expected.prediction:size(0))
end

-- ---- the predictor alone ----

local function check_unit(self, name, report, check)
  local a = npz.load(('%s/%s.npz'):format(self.dir, name))
  local kind = name:match('invariant') and 'invariant' or 'concat'
  local weights = pattern.from_checkpoint(('%s/gpt_unit_%s'):format(self.dir, kind))
  local layers = 0
  while weights[('transformer.h.%d.ln_1.weight'):format(layers)] do layers = layers + 1 end
  local blocks, heads, T = a.block0, a.present_k0:size(1), a.block0:size(1)
  local predictor = models.Predictor { features = a.x:size(1), actions = a.augs:size(1), projection_dim = a.y:size(1), n_embd = blocks:size(2),
    n_layer = layers, n_head = heads, block_size = T, is_invariant = kind == 'invariant' }
  predictor:load_state_dict(weights, name)
  local masks = a.draws and random_masks({ config = { block_size = T, _note = self.config._note } }, a.draws) or context_mask.pair_mask(T)
  local x, augs = a.x:requires_grad_(), a.augs:requires_grad_()
  local y, kv = predictor(x, augs, masks)
  check.l2(name .. ' y', y, a.y, 1e-5)
  for layer, pair in ipairs(kv) do
    check.l2(('%s keys %d'):format(name, layer - 1), pair.k, a['present_k' .. layer - 1], 1e-5)
    check.l2(('%s values %d'):format(name, layer - 1), pair.v, a['present_v' .. layer - 1], 1e-5)
  end
  y:backward(a.gy)
  check.l2(name .. ' gx', x.grad, a.gx, 1e-5)
  if a.gaugs then check.l2(name .. ' gaugs', augs.grad, a.gaugs, 1e-5) end
  for _, entry in ipairs(predictor:named_parameters()) do
    check.l2(('%s gradient %s'):format(name, entry[1]), entry[2].grad, a['grad/' .. entry[1]], 1e-5)
  end
  report(name .. ' keys', layers, layers, true)
end

return function(dir, report)
  local check = compare.reporter(report)
  local self = open(dir)
  local function guarded(name, fn) compare.guard(report, name, function() tycho.scope(fn) end) end
  guarded('masks', function() check_masks(self, check) end)
  guarded('lr_schedule', function() check_schedule(self, check) end)
  local mask_draws = npy.load(dir .. '/mask_draws.npy')
  for _, masked in ipairs { 'nomask', 'mask' } do
    for _, environment in ipairs(ENVIRONMENTS) do
      local case = masked .. '_' .. environment
      guarded('train ' .. case, function()
        check_case(self, case, environment, masked == 'mask' and random_masks(self, mask_draws) or pair_masks(self), report, check)
      end)
    end
  end
  for name in pairs(self.config._train_trajectories) do
    guarded('trajectory ' .. name, function() check_trajectory(self, name, check) end)
  end
  guarded('evaluation', function() check_evaluation(self, check) end)
  guarded('padding', function() check_padding(self, report, check) end)
  for file in lfs.dir(dir) do
    local name = file:match('^(gpt_unit_.*)%.npz$')
    if name then guarded(name, function() check_unit(self, name, report, check) end) end
  end
end
