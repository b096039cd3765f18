-- What the training looks at every log_interval epochs: R2 and accuracy behind a fixed context, and kNN accuracy, on one pair of views
-- of each held-out object.
local tycho = require 'tycho'
local progress = require 'tycho.train.progress'
local context = require 'experiments.contextssl.context'
local context_mask = require 'experiments.contextssl.context_mask'
local environments = require 'experiments.contextssl.environments'
local knn = require 'experiments.contextssl.knn'
local metrics = require 'experiments.contextssl.metrics'

local M = {}
local CHUNK = 128 -- pairs encoded at a time
local K, TEMPERATURE = 200, 0.1
local STOPPED = {}

-- Features (2B,E), states (2B,6), actions (B,6) and labels (2B) of one pair of views of every object.
local function encode(model, dataset, seed, stream, line)
  local objects = {}
  for i = 1, dataset:size() do objects[i] = i - 1 end
  local list = dataset:draw_pairs(objects, tycho.generator(seed, stream))
  local features, states, actions, labels = {}, {}, {}, {}
  for start = 1, #list, CHUNK do
    if tycho.interrupted() then error(STOPPED, 0) end
    local piece = { unpack(list, start, math.min(start + CHUNK - 1, #list)) }
    features[#features + 1], states[#states + 1], actions[#actions + 1] = tycho.scope(function()
      local batch = dataset:batch(piece)
      return model.enc(batch.x), batch.latents:reshape({ -1, 6 }):clone(), batch.r:clone()
    end)
    for _, pair in ipairs(piece) do
      labels[#labels + 1] = dataset.labels[pair[1] + 1]
      labels[#labels + 1] = dataset.labels[pair[1] + 1]
    end
    line.done = line.done + #piece
    line:update(line.done, dataset.split, 2)
  end
  return tycho.cat(features), tycho.cat(states), tycho.cat(actions), tycho.tensor(labels, 'i64')
end

-- Rows of the first views (zr: with the action) or of the second (z+: without).
local function rows_of(token, n)
  local rows = {}
  for i = token == 'zr' and 0 or 1, n - 1, 2 do rows[#rows + 1] = i end
  return rows
end

-- R2 of the read-out: rotation and colour of zr and z+. output, states: (2B,6). A zr is compared with view 2 in the attributes that the mode
-- speaks of and with its own view in the others; a z+ with its own view.
function M.scores(output, states, mode)
  local n, scores = output:size(0), {}
  local columns = { rotation = { 0, 4, environments.has_rotation(mode) }, color = { 4, 2, environments.has_color(mode) } }
  for _, token in ipairs { 'zr', 'z+' } do
    local rows = rows_of(token, n)
    for attribute, range in pairs(columns) do
      local target_rows = token == 'zr' and range[3] and rows_of('z+', n) or rows
      scores[token .. '/' .. attribute] = metrics.r2(output:index_select(rows):narrow(1, range[1], range[2]),
        states:index_select(target_rows):narrow(1, range[1], range[2]))
    end
  end
  return scores
end

-- Accuracy of class logits (2B,classes) on the rows of a token.
local function accuracy(logits, labels, token)
  local rows = rows_of(token, logits:size(0))
  local own = {}
  for i, row in ipairs(rows) do own[i] = tonumber(labels:ptr()[row]) end
  return metrics.accuracy(logits:index_select(rows), tycho.tensor(own, 'i64', logits.device))
end

-- Embeddings of all rows: first views with the mode's action, second views with none.
function M.embed(model, features, actions, mode, memory)
  local r = environments.restrict(actions, mode)
  local both = tycho.stack({ r, tycho.zeros_like(r) }, 1):reshape { features:size(0), r:size(1) }
  return context.embed(model, features, both, memory)
end

-- Predictions (2B, projection_dim) as in training, in sequences of block_size, but without actions and without hidden pairs.
local function predictions(model, features)
  local pieces, mask = {}, context_mask.pair_mask(model.predictor.options.block_size)
  local rows = math.ceil(2 * CHUNK / model.predictor.options.block_size) * model.predictor.options.block_size
  for start = 0, features:size(0) - 1, rows do
    local f = features:narrow(0, start, math.min(rows, features:size(0) - start))
    pieces[#pieces + 1] = tycho.scope(function()
      return model.predictor(f, tycho.zeros({ f:size(0) / 2, model.predictor.options.actions }, 'f32', f.device), mask):clone()
    end)
  end
  return tycho.cat(pieces)
end

local function look(model, probe, train, val, config, line)
  local out = {}
  local features, states, actions, labels = encode(model, val, config.context_seed, 300, line)
  local examples = (config.cache_type == 'train' and train or val):context(config.block_size / 2, config.context_seed)
  for _, mode in ipairs { 'rot', 'color' } do
    local memory = context.encode(model, examples, mode)
    for _, c in ipairs { 0, config.block_size - 2 } do
      local z = M.embed(model, features, actions, mode, context.cut(memory, c))
      local name = ('eval/%s/c%d/'):format(mode, c)
      local read_out = model.aug_predictor(config.eval_normalize and z:normalize() or z)
      for key, score in pairs(M.scores(read_out, states, mode)) do out[name .. key] = score end
      local _, logits = probe(features, z)
      for _, token in ipairs { 'zr', 'z+' } do out[name .. token .. '/acc_pred'] = accuracy(logits, labels, token) end
    end
  end
  out['eval/acc_feat'] = accuracy((probe(features, features)), labels, 'z+')
  out['eval/floor/rotation'] = metrics.floor(states:index_select(rows_of('z+', states:size(0))):narrow(1, 0, 4))
  local bank, _, _, bank_labels = encode(model, train, config.context_seed, 301, line)
  for name, transform in pairs { feat = function(f) return f end, pred = function(f) return predictions(model, f) end } do
    local votes = knn.predict(transform(features):normalize(), transform(bank):normalize(), bank_labels, train.classes, K, TEMPERATURE)
    out['eval/knn_' .. name] = knn.accuracy(votes, labels)
  end
  return out
end

-- A function(model, probe) for the training's options.monitor: numbers by name, or nil when Ctrl-C came in between. config: the keys of config.yml.
function M.new(train, val, config)
  return function(model, probe)
    local line = progress('looking', train:size() + val:size())
    line.done = 0
    local ok, out = xpcall(function()
      return model:evaluating(function() return tycho.scope(look, model, probe, train, val, config, line) end)
    end, tycho.lib.remember)
    if ok then return out end
    if out ~= STOPPED then error(out, 0) end
  end
end

return M
