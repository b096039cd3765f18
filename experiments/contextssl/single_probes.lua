-- Probes on single embeddings: class, rotation and colour, from the features, from z+ and from zr behind every context. A training batch holds one
-- pair of views of each object: the features of both views, zr of the first, z+ of the second. zr depends on the pair, so that its pairs are those
-- of a cycle through each object's views, drawn once; an epoch takes one of them for every object.
local tycho = require 'tycho'
local environments = require 'experiments.contextssl.environments'
local metrics = require 'experiments.contextssl.metrics'
local probes = require 'experiments.contextssl.probes'

local M = {}
local SCORED = 1024 -- images scored at a time

-- The store's pieces that M.run reads. inputs: list of {'zplus' or 'zr', mode, c}.
function M.pieces(store, inputs)
  local list = {}
  for _, split in ipairs { 'train', 'val' } do
    list[#list + 1] = store:piece('states', split)
    list[#list + 1] = store:piece('features', split)
    for _, input in ipairs(inputs) do list[#list + 1] = store:piece(input[1], split, input[2], input[3]) end
  end
  return list
end

-- Targets (n,6) of zr: the second view in the attributes that the mode speaks of, the first view in the others.
function M.targets(mode, own, other)
  return environments.restrict(other, mode) + (own - environments.restrict(own, mode))
end

-- What a split holds for the probes: values of the features and of every input, states and labels.
local function open(store, split, inputs)
  local dataset, values = store.datasets[split], {}
  for i, input in ipairs(inputs) do values[i] = store:get(input[1], split, input[2], input[3]) end
  local labels = tycho.empty({ dataset:size() * dataset.views }, 'i64')
  for i = 0, labels:numel() - 1 do labels:ptr()[i] = dataset.labels[math.floor(i / dataset.views) + 1] end
  return { features = store:get('features', split), values = values, states = store:get('states', split), labels = labels,
    partner = store:partners(split), views = dataset.views }
end

local function features_batch(data, rows)
  local features = data.features:index_select(rows):reshape { 1, rows:numel(), data.features:size(1) }
  return { raw = features, unit = features, states = data.states:index_select(rows), labels = data.labels:index_select(rows) }
end

-- single: rows of z+; first, second: rows of the pairs of zr. All of the same objects.
local function inputs_batch(data, inputs, single, first, second)
  local own, other = data.states:index_select(first), data.states:index_select(second)
  local values, states = {}, {}
  for i, input in ipairs(inputs) do
    local is_zr = input[1] == 'zr'
    values[i] = data.values[i]:index_select(is_zr and first or single)
    states[i] = is_zr and M.targets(input[2], own, other) or data.states:index_select(single)
  end
  local raw = tycho.stack(values)
  return { raw = raw, unit = raw:normalize(), states = tycho.stack(states), labels = data.labels:index_select(first) }
end

-- Iterator over all images of a split: fn(rows) for rows in order.
local function over_images(data, fn)
  local n, start = data.labels:numel(), 0
  return function()
    if start >= n then return nil end
    local rows = tycho.empty({ math.min(SCORED, n - start) }, 'i64')
    for i = 0, rows:numel() - 1 do rows:ptr()[i] = start + i end
    start = start + SCORED
    return fn(rows)
  end
end

-- inputs: list of {'zplus' or 'zr', mode, c}. settings as pair_probes.run, whose log gets scores on all held-out images. Returns the scores
-- {top1 = list, rotation_r2 = list, color_r2 = list}, the features first, then the inputs in order; and the R2 of a constant predictor
-- {rotation, color}. nil after Ctrl-C.
function M.run(store, inputs, settings)
  local train, val = open(store, 'train', inputs), open(store, 'val', inputs)
  local classes = math.max(store.datasets.train.classes, store.datasets.val.classes)
  tycho.rng.seed(settings.seed)
  local width = train.features:size(1)
  local features_probe = probes.new(1, width, settings.learning_rate, store.model:device(), classes)
  local probe = probes.new(#inputs, width, settings.learning_rate, store.model:device(), classes)

  local function step(objects, generator)
    local first = tycho.empty({ #objects }, 'i64')
    for i, object in ipairs(objects) do first:ptr()[i - 1] = object * train.views + generator:integer(train.views) end
    local second = train.partner:index_select(first)
    return features_probe:step(features_batch(train, tycho.cat { first, second }))
      + probe:step(inputs_batch(train, inputs, second, first, second))
  end
  local function scores()
    local out = features_probe:scores(over_images(val, function(rows) return features_batch(val, rows) end))
    local others = probe:scores(over_images(val, function(rows)
      return inputs_batch(val, inputs, rows, rows, val.partner:index_select(rows))
    end))
    for attribute, list in pairs(others) do
      for _, score in ipairs(list) do table.insert(out[attribute], score) end
    end
    return out
  end
  local finished = probes.train { objects = store.datasets.train:size(), epochs = settings.epochs, batch_size = settings.batch_size,
    seed = settings.seed, step = step, log_interval = settings.log_interval,
    log = settings.log and function(epoch, loss) settings.log(epoch, loss, scores()) end }
  if not finished then return nil end
  return scores(), { rotation = metrics.floor(val.states:narrow(1, 0, 4)), color = metrics.floor(val.states:narrow(1, 4, 2)) }
end

return M
