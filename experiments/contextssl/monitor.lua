-- What the training looks at every log_interval epochs: R2 and accuracy behind a fixed context, and kNN accuracy, on one pair of views
-- of each held-out object.
local tycho = require 'tycho'
local context = require 'experiments.contextssl.context'
local environments = require 'experiments.contextssl.environments'
local knn = require 'experiments.contextssl.knn'
local metrics = require 'experiments.contextssl.metrics'

local M = {}
local CHUNK = 128 -- pairs encoded at a time
local K, TEMPERATURE = 200, 0.1

-- Features (2B,E), states (2B,6), actions (B,6) and labels (2B) of one pair of views of every object.
local function encode(model, dataset, seed, stream)
  local objects = {}
  for i = 1, dataset:size() do objects[i] = i - 1 end
  local list = dataset:draw_pairs(objects, tycho.generator(seed, stream))
  local features, states, actions, labels = {}, {}, {}, {}
  for start = 1, #list, CHUNK do
    local piece = { unpack(list, start, math.min(start + CHUNK - 1, #list)) }
    features[#features + 1], states[#states + 1], actions[#actions + 1] = tycho.scope(function()
      local batch = dataset:batch(piece)
      return model.enc(batch.x), batch.latents:reshape({ -1, 6 }):clone(), batch.r:clone()
    end)
    for _, pair in ipairs(piece) do
      labels[#labels + 1] = dataset.labels[pair[1] + 1]
      labels[#labels + 1] = dataset.labels[pair[1] + 1]
    end
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

-- Embeddings of all rows: first views with the mode's action, second views with none.
function M.embed(model, features, actions, mode, memory)
  local r = environments.restrict(actions, mode)
  local both = tycho.stack({ r, tycho.zeros_like(r) }, 1):reshape { features:size(0), r:size(1) }
  return context.embed(model, features, both, memory)
end

-- A function(model, probe) for the training's options.monitor. config: block_size, context_seed.
function M.new(train, val, config)
  local seed = config.context_seed
  return function(model, probe)
    return model:evaluating(function()
      return tycho.scope(function()
        local out = {}
        local features, states, actions, labels = encode(model, val, seed, 300)
        local examples = train:context(config.block_size / 2, seed)
        for _, mode in ipairs { 'rot', 'color' } do
          local memory = context.encode(model, examples, mode)
          for _, c in ipairs { 0, config.block_size - 2 } do
            local z = M.embed(model, features, actions, mode, context.cut(memory, c))
            local name = ('eval/%s/c%d/'):format(mode, c)
            for key, score in pairs(M.scores(model.aug_predictor(z:normalize()), states, mode)) do out[name .. key] = score end
            local _, logits = probe(features, z)
            out[name .. 'acc_pred'] = metrics.accuracy(logits, labels)
          end
        end
        out['eval/acc_feat'] = metrics.accuracy((probe(features, features)), labels)
        local bank, _, _, bank_labels = encode(model, train, seed, 301)
        for name, transform in pairs {
          feat = function(f) return f end,
          pred = function(f) return context.embed(model, f) end,
        } do
          local votes = knn.predict(transform(features):normalize(), transform(bank):normalize(), bank_labels, train.classes, K, TEMPERATURE)
          out['eval/knn_' .. name] = knn.accuracy(votes, labels)
        end
        return out
      end)
    end)
  end
end

return M
