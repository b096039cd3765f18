-- R2 of pairs: from the embeddings of an object's two views, freshly trained probes predict the action between them, for the features and for the
-- z+ behind every context. Train pairs are drawn anew in each epoch; the held-out ones are a cycle through each object's views.
local tycho = require 'tycho'
local metrics = require 'experiments.contextssl.metrics'
local probes = require 'experiments.contextssl.probes'
local view_pairs = require 'experiments.contextssl.view_pairs'

local M = {}
local SCORED = 1024 -- pairs scored at a time

-- The store's pieces that M.run reads. contexts: list of {mode, c}.
function M.pieces(store, contexts)
  local list = {}
  for _, split in ipairs { 'train', 'val' } do
    list[#list + 1] = store:piece('states', split)
    list[#list + 1] = store:piece('features', split)
    for _, context in ipairs(contexts) do list[#list + 1] = store:piece('zplus', split, unpack(context)) end
  end
  return list
end

-- Both views' embeddings side by side, for every head: (heads, n, 2 width). Features are read raw, z+ normalised (eval_equivariance).
local function paired(values, first, second)
  local list = {}
  for i, each in ipairs(values) do
    local a, b = each:index_select(first), each:index_select(second)
    if i > 1 then a, b = a:normalize(), b:normalize() end
    list[i] = tycho.cat({ a, b }, 1)
  end
  return tycho.stack(list)
end

-- An iterator of batches for Probe:scores over the pairs (rows[i], partner of rows[i]); rows: int64.
local function batches(values, states, partner, rows)
  local start = 0
  return function()
    if start >= rows:numel() then return nil end
    local first = rows:narrow(0, start, math.min(SCORED, rows:numel() - start))
    local second = partner:index_select(first)
    start = start + SCORED
    return { unit = paired(values, first, second), states = view_pairs.actions(states, first, second) }
  end
end

-- Every step-th of n rows.
local function rows_of(n, step)
  local rows = tycho.empty({ math.ceil(n / step) }, 'i64')
  for i = 0, rows:numel() - 1 do rows:ptr()[i] = i * step end
  return rows
end

-- contexts: list of {mode, c}. settings: epochs, batch_size, learning_rate, seed; optional log_interval and log(epoch, loss, scores), with scores of
-- one pair of each held-out object. Returns the scores {rotation_r2 = list, color_r2 = list}, the features first, then the contexts in order, on all
-- held-out pairs; and the R2 of a constant predictor {rotation, color}. nil after Ctrl-C.
function M.run(store, contexts, settings)
  local train = store.datasets.train
  local function values_of(split)
    local values = { store:get('features', split) }
    for _, context in ipairs(contexts) do values[#values + 1] = store:get('zplus', split, unpack(context)) end
    return values
  end
  local train_values, train_states = values_of 'train', store:get('states', 'train')
  local val_values, val_states, partner = values_of 'val', store:get('states', 'val'), store:partners 'val'
  local n = val_states:size(0)

  tycho.rng.seed(settings.seed)
  local probe = probes.new(#train_values, 2 * train_values[1]:size(1), settings.learning_rate, store.model:device())
  local function step(objects, generator)
    local first, second = view_pairs.rows(train:draw_pairs(objects, generator), train.views)
    return probe:step { unit = paired(train_values, first, second), states = view_pairs.actions(train_states, first, second) }
  end
  local function log(epoch, loss)
    settings.log(epoch, loss, probe:scores(batches(val_values, val_states, partner, rows_of(n, store.datasets.val.views))))
  end
  local finished = probes.train { objects = train:size(), epochs = settings.epochs, batch_size = settings.batch_size, seed = settings.seed,
    step = step, log = settings.log and log, log_interval = settings.log_interval }
  if not finished then return nil end
  local actions = view_pairs.actions(val_states, rows_of(n, 1), partner)
  return probe:scores(batches(val_values, val_states, partner, rows_of(n, 1))),
    { rotation = metrics.floor(actions:narrow(1, 0, 4)), color = metrics.floor(actions:narrow(1, 4, 2)) }
end

return M
