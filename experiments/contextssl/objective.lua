-- The loss of one training step, a sum of terms, and what is logged of it. To change a term, replace it in M.terms (policies.lua).
local tycho = require 'tycho'
local nt_xent = require 'tycho.loss.nt_xent'
local environments = require 'experiments.contextssl.environments'
local metrics = require 'experiments.contextssl.metrics'
local unknown = require 'experiments.contextssl.unknown'

local M = {}

-- Rows of the pairs' second view, once for each of the pair's two tokens: latents (B,2,6) -> (2B,6).
function M.second_view(latents)
  local rows = {}
  for i = 0, latents:size(0) - 1 do rows[2 * i + 1], rows[2 * i + 2] = 2 * i + 1, 2 * i + 1 end
  return latents:reshape({ -1, latents:size(2) }):index_select(rows)
end

-- Class labels (B) -> (2B), one for each view.
local function twice(labels)
  local rows = {}
  for i = 0, labels:numel() - 1 do rows[2 * i + 1], rows[2 * i + 2] = i, i end
  return labels:index_select(rows)
end

-- The terms of the loss, added in the order of their names. A term is function(step) that returns a scalar tensor, or nil where it has nothing to
-- say. step holds the arguments of M.losses by name and what the forward pass gave: feature (2B,E), prediction (2B,P), normalized (of unit length),
-- target (2B,6, the state of each pair's second view), labels (2B). What a term puts into step besides, M.report may log. To take one out that is
-- not there is an error.
M.terms = setmetatable({}, { __newindex = function(terms, name, term)
  if term == nil then unknown('term', name, terms, 2) end
  rawset(terms, name, term)
end })

function M.terms.contrastive(step)
  step.nt_xent = nt_xent(step.prediction, step.config.temperature, { clamp = step.config.nt_xent_clamp })
  return step.nt_xent
end

-- The auxiliary predictor reads, from both tokens of a pair, the attributes of view 2 that the environment speaks of.
function M.terms.equivariance(step)
  local weight, loss = step.config.weight_equiv_loss, nil
  step.equiv_logits = step.model.aug_predictor(step.normalized)
  local function mse(first, count) return step.equiv_logits:narrow(1, first, count):mse(step.target:narrow(1, first, count)) end
  if environments.has_rotation(step.environment) then
    step.rotation_loss = mse(0, 4)
    loss = step.rotation_loss * weight
  end
  if environments.has_color(step.environment) then
    step.color_loss = mse(4, 2)
    loss = loss and loss + step.color_loss * weight or step.color_loss * weight
  end
  return loss
end

-- The online probes see detached inputs: they learn beside the model and never touch it.
function M.terms.probes(step)
  step.logits_feat, step.logits_pred = step.probe(step.feature, step.prediction)
  step.ce_feat, step.ce_pred = step.logits_feat:cross_entropy(step.labels), step.logits_pred:cross_entropy(step.labels)
  return step.ce_feat + step.ce_pred
end

-- batch: x (2B,3,H,W) interleaved views, r (B,6), latents (B,2,6), y (B). masks: as Predictor. Returns the loss to minimise and the step: a table of
-- tensors (outputs and terms).
function M.losses(model, probe, batch, environment, masks, config)
  local step = { model = model, probe = probe, batch = batch, environment = environment, config = config }
  step.feature = model.enc(batch.x)
  step.prediction = model.predictor(step.feature, environments.restrict(batch.r, environment), masks)
  step.normalized = step.prediction:normalize()
  step.target, step.labels = M.second_view(batch.latents), twice(batch.y)
  local terms, names = require('experiments.contextssl.policies').terms, {} -- which may be another table by now
  if type(terms) ~= 'table' then error(('policies.terms must be a table of functions by name, got %s'):format(type(terms)), 0) end
  for name in pairs(terms) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    if type(terms[name]) ~= 'function' then
      error(('policies.terms.%s must be a function of the step that returns a scalar or nil, got %s'):format(name, type(terms[name])), 0)
    end
    local term = terms[name](step)
    step.loss = term and (step.loss and step.loss + term or term) or step.loss
  end
  if not step.loss then error('the loss has no terms: policies.terms is empty, or none of them returned a tensor', 0) end
  return step.loss, step
end

-- ---- what is logged ----

local ROTATION, COLOR = { 0, 4 }, { 4, 2 } -- columns of a state: the first, and how many

local function columns(t, range) return t:narrow(1, range[1], range[2]) end

-- R2 by position in the context: of the attribute that the environment speaks of against view 2 (equivariance), and of the other one against
-- each token's own view (invariance). Returns a list of {name, values = metrics.r2_by_position}.
function M.context_scores(out, batch, environment, config)
  return tycho.no_grad(function()
    local own = batch.latents:reshape { -1, batch.latents:size(2) }
    local function score(name, range, target)
      return { name = name, values = metrics.r2_by_position(columns(out.equiv_logits, range), columns(target, range), config.block_size) }
    end
    if environment == 'rot' then return { score('rot_equivariance', ROTATION, out.target), score('color_invariance', COLOR, own) } end
    if environment == 'color' then return { score('color_equivariance', COLOR, out.target), score('rot_invariance', ROTATION, own) } end
    return { score('rot_equivariance', ROTATION, out.target), score('color_equivariance', COLOR, out.target) }
  end)
end

-- What M.losses returned, as name -> scalar tensor; terms that were taken out have no entry.
function M.report(out)
  return tycho.no_grad(function()
    local positive, negative = metrics.similarities(out.prediction)
    local report = {
      loss = out.nt_xent or out.loss, ce_feat = out.ce_feat, ce_pred = out.ce_pred,
      pos_sim = positive, neg_sim = negative, rot_mse = out.rotation_loss, color_mse = out.color_loss,
    }
    if out.ce_feat then
      report.acc_feat = metrics.accuracy_tensor(out.logits_feat, out.labels)
      report.acc_pred = metrics.accuracy_tensor(out.logits_pred, out.labels)
    end
    if out.rotation_loss then report.rot_r2 = metrics.r2_tensor(columns(out.equiv_logits, ROTATION), columns(out.target, ROTATION)) end
    if out.color_loss then report.color_r2 = metrics.r2_tensor(columns(out.equiv_logits, COLOR), columns(out.target, COLOR)) end
    return report
  end)
end

-- Adds a step to the meters (tycho.train.meters). An average over steps weighs each by its rows, or by its whole sequences for the scores by
-- position; a token without an action has no such scores, nor has a loss without the equivariance term.
function M.measure(meters, out, batch, environment, config)
  meters:add(M.report(out), out.prediction:size(0))
  local sequences = math.floor(out.prediction:size(0) / config.block_size)
  if config.is_invariant or sequences == 0 or not out.equiv_logits then return end
  local scores = {}
  for _, score in ipairs(M.context_scores(out, batch, environment, config)) do
    for _, entry in ipairs(score.values) do scores[('%s/c%d'):format(score.name, entry[1])] = entry[2] end
  end
  meters:add(scores, sequences)
end

return M
