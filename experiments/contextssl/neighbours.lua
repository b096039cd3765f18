-- The nearest neighbours of held-out images among train images, behind each context: what of the pose and the hues they share says what the
-- representation holds, without a trained head. On embeddings z+ of unit length.
local tycho = require 'tycho'
local context = require 'experiments.contextssl.context'
local knn = require 'experiments.contextssl.knn'
local metrics = require 'experiments.contextssl.metrics'

local M = {}

local ENCODED = 64 -- images that pass the encoder at a time
local K = 10

-- Features (n,E) and states (n,6) of items (object * views + view).
local function encode(model, dataset, items)
  local features, states = {}, {}
  for start = 1, #items, ENCODED do
    local piece = { unpack(items, start, math.min(start + ENCODED - 1, #items)) }
    features[#features + 1] = tycho.scope(function() return model.enc(dataset:images(piece)) end)
    for _, item in ipairs(piece) do states[#states + 1] = dataset:state(math.floor(item / dataset.views), item % dataset.views) end
  end
  return tycho.cat(features), tycho.tensor(states)
end

-- `most` items of a data set, evenly over all of them.
local function some(dataset, most)
  local total, items = dataset:size() * dataset.views, {}
  for i = 0, math.min(most, total) - 1 do items[#items + 1] = math.floor(i * total / math.min(most, total)) end
  return items
end

-- Rows of the train images nearest to each held-out one, by mode: 'none' (no context), 'rot' and 'color' (block_size - 2 tokens of context). most:
-- images of each split at most. Returns {queries = items, bank = items, states = of queries, bank_states, nearest = {mode = list of lists of k}}.
function M.find(model, train, val, config, most, k)
  return model:evaluating(function()
    return tycho.no_grad(function()
      local found = { queries = some(val, most), bank = some(train, most), nearest = {} }
      local query, bank
      query, found.states = encode(model, val, found.queries)
      bank, found.bank_states = encode(model, train, found.bank)
      local examples = (config.cache_type == 'train' and train or val):context(config.block_size / 2, config.context_seed)
      for _, mode in ipairs { 'none', 'rot', 'color' } do
        found.nearest[mode] = tycho.scope(function()
          local memory = mode ~= 'none' and context.cut(context.encode(model, examples, mode), config.block_size - 2) or nil
          local function embed(features) return context.embed(model, features, nil, memory):normalize() end
          return knn.nearest(embed(query), embed(bank), k)
        end)
      end
      return found
    end)
  end)
end

-- R2 of the mean state of the K nearest train images for rotation and colour, as names such as knn/rot/color (behind a rotation context, of the
-- hues), and of a constant predictor. Each split gives at most `most` images.
function M.scores(model, train, val, config, most)
  local found, scores = M.find(model, train, val, config, most, K), {}
  for mode, lists in pairs(found.nearest) do
    tycho.scope(function()
      local rows = {}
      for i, list in ipairs(lists) do rows[i] = found.bank_states:index_select(list):mean(0):reshape { 1, 6 } end
      local guess = tycho.cat(rows)
      for attribute, range in pairs { rotation = { 0, 4 }, color = { 4, 2 } } do
        scores[('knn/%s/%s'):format(mode, attribute)] = metrics.r2(guess:narrow(1, unpack(range)), found.states:narrow(1, unpack(range)))
      end
    end)
  end
  scores['knn/floor/rotation'] = metrics.floor(found.states:narrow(1, 0, 4))
  return scores
end

return M
