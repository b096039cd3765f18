-- The losses of one training step and what is logged of them. Edit M.losses to change the objective.
local tycho = require 'tycho'
local nt_xent = require 'tycho.loss.nt_xent'
local environments = require 'experiments.contextssl.environments'
local metrics = require 'experiments.contextssl.metrics'

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

-- batch: x (2B,3,H,W) interleaved views, r (B,6), latents (B,2,6), y (B). masks: as Predictor. Returns the loss to minimise and a table of
-- tensors (outputs and terms).
function M.losses(model, probe, batch, environment, masks, config)
  local r = environments.restrict(batch.r, environment)
  local feature = model.enc(batch.x)
  local prediction = model.predictor(feature, r, masks)
  local normalized = prediction:normalize()
  local out = { feature = feature, prediction = prediction, normalized = normalized }
  out.nt_xent = nt_xent(prediction, config.temperature, { clamp = config.nt_xent_clamp })
  local loss = out.nt_xent

  out.target = M.second_view(batch.latents)
  out.equiv_logits = model.aug_predictor(normalized)
  if environments.has_rotation(environment) then
    out.rotation_loss = out.equiv_logits:narrow(1, 0, 4):mse(out.target:narrow(1, 0, 4))
    loss = loss + out.rotation_loss * config.weight_equiv_loss
  end
  if environments.has_color(environment) then
    out.color_loss = out.equiv_logits:narrow(1, 4, 2):mse(out.target:narrow(1, 4, 2))
    loss = loss + out.color_loss * config.weight_equiv_loss
  end

  -- The online probes see detached inputs: they learn beside the model and never touch it.
  out.labels = twice(batch.y)
  out.logits_feat, out.logits_pred = probe(feature, prediction)
  out.ce_feat, out.ce_pred = out.logits_feat:cross_entropy(out.labels), out.logits_pred:cross_entropy(out.labels)
  loss = loss + out.ce_feat + out.ce_pred
  out.loss = loss
  return loss, out
end

-- ---- what is logged ----

local ROTATION, COLOR = { 0, 4 }, { 4, 2 } -- columns of a state: the first, and how many

local function columns(t, range) return t:narrow(1, range[1], range[2]) end

-- R2 by position in the context: of the attribute that the environment speaks of against view 2 (equivariance), and of the other one against
-- each token's own view (invariance). Returns a list of {name, values = metrics.by_position}, values being scalar tensors.
function M.context_scores(out, batch, environment, config)
  return tycho.no_grad(function()
    local own = batch.latents:reshape { -1, batch.latents:size(2) }
    local function score(name, range, target)
      return { name = name, values = metrics.by_position(metrics.r2_tensor, columns(out.equiv_logits, range):contiguous(),
        columns(target, range):contiguous(), config.block_size) }
    end
    if environment == 'rot' then return { score('rot_equivariance', ROTATION, out.target), score('color_invariance', COLOR, own) } end
    if environment == 'color' then return { score('color_equivariance', COLOR, out.target), score('rot_invariance', ROTATION, own) } end
    return { score('rot_equivariance', ROTATION, out.target), score('color_equivariance', COLOR, out.target) }
  end)
end

-- What M.losses returned, as name -> scalar tensor.
function M.report(out)
  return tycho.no_grad(function()
    local positive, negative = metrics.similarities(out.prediction)
    local report = {
      loss = out.nt_xent, ce_feat = out.ce_feat, ce_pred = out.ce_pred,
      acc_feat = metrics.accuracy_tensor(out.logits_feat, out.labels), acc_pred = metrics.accuracy_tensor(out.logits_pred, out.labels),
      pos_sim = positive, neg_sim = negative, rot_mse = out.rotation_loss, color_mse = out.color_loss,
    }
    if out.rotation_loss then report.rot_r2 = metrics.r2_tensor(columns(out.equiv_logits, ROTATION), columns(out.target, ROTATION)) end
    if out.color_loss then report.color_r2 = metrics.r2_tensor(columns(out.equiv_logits, COLOR), columns(out.target, COLOR)) end
    return report
  end)
end

-- Adds a step to the meters (tycho.train.meters). An average over steps weighs each by its rows, or by its whole sequences for the scores by
-- position; a token without an action has no such scores.
function M.measure(meters, out, batch, environment, config)
  meters:add(M.report(out), out.prediction:size(0))
  local sequences = math.floor(out.prediction:size(0) / config.block_size)
  if config.is_invariant or sequences == 0 then return end
  local scores = {}
  for _, score in ipairs(M.context_scores(out, batch, environment, config)) do
    for _, entry in ipairs(score.values) do scores[('%s/c%d'):format(score.name, entry[1])] = entry[2] end
  end
  meters:add(scores, sequences)
end

return M
