-- R2 by context length. Features, and embeddings per (mode, context length), are computed once and kept; the trained read-out and freshly
-- trained probes work on those.
local tycho = require 'tycho'
local context = require 'experiments.contextssl.context'
local metrics = require 'experiments.contextssl.metrics'
local probes = require 'experiments.contextssl.probes'
local latents = require 'experiments.contextssl.latents'
local progress = require 'tycho.train.progress'

local M = {}
local CHUNK = 256

-- Calls fn(start, count) over n rows and stacks the results. Each chunk's temporaries are freed.
local function in_chunks(n, fn)
  local pieces = {}
  for start = 0, n - 1, CHUNK do
    pieces[#pieces + 1] = tycho.scope(fn, start, math.min(CHUNK, n - start))
  end
  return tycho.cat(pieces)
end

-- Features (N,E) and states (N,6) of all views of all objects, in the order object * views + view.
function M.features(model, dataset, line)
  local n = dataset:size() * dataset.views
  local features = in_chunks(n, function(start, count)
    local items = {}
    for i = 1, count do items[i] = start + i - 1 end
    line:update(start, dataset.split)
    return model.enc(dataset:images(items))
  end)
  local states = {}
  for i = 0, n - 1 do states[i + 1] = dataset:state(math.floor(i / dataset.views), i % dataset.views) end
  return features, tycho.tensor(states)
end

-- z+ (N, projection_dim), normalised: what the model embeds each image to behind a context, without an action.
function M.embeddings(model, features, memory)
  return in_chunks(features:size(0), function(start, count)
    return context.embed(model, features:narrow(0, start, count), nil, memory):normalize()
  end)
end

-- The trained read-out (aug_predictor on z+) against each view's own state.
local function readout(model, embeddings, states)
  local output = in_chunks(embeddings:size(0), function(start, count) return model.aug_predictor(embeddings:narrow(0, start, count)) end)
  return { rotation = metrics.r2(output:narrow(1, 0, 4), states:narrow(1, 0, 4)),
    color = metrics.r2(output:narrow(1, 4, 2), states:narrow(1, 4, 2)) }
end

-- Pairs of two views of each object: row numbers of both views, and actions (n,6).
local function draw_pairs(dataset, generator, repeats)
  local first, second, actions = {}, {}, {}
  for _ = 1, repeats do
    for _, object in ipairs(generator:permutation(dataset:size())) do
      local views = generator:choose(2, dataset.views)
      first[#first + 1], second[#second + 1] = object * dataset.views + views[1], object * dataset.views + views[2]
      actions[#actions + 1] = latents.action(dataset:state(object, views[1]), dataset:state(object, views[2]))
    end
  end
  return first, second, tycho.tensor(actions)
end

-- A probe trained on the train set's embeddings, pairs drawn anew each epoch, scored on the held-out ones.
local function probe_score(train, val, train_embeddings, val_embeddings, settings)
  local generator = tycho.generator(settings.seed, 200)
  local probe = probes.pair(train_embeddings:size(1), settings.learning_rate)
  for _ = 1, settings.epochs do
    tycho.scope(function()
      local first, second, actions = draw_pairs(train, generator, 1)
      local x = tycho.cat({ train_embeddings:index_select(first), train_embeddings:index_select(second) }, 1)
      for start = 0, x:size(0) - 1, settings.batch_size do
        local count = math.min(settings.batch_size, x:size(0) - start)
        probe:step(x:narrow(0, start, count), actions:narrow(0, start, count))
      end
    end)
  end
  return tycho.scope(function()
    local first, second, actions = draw_pairs(val, tycho.generator(settings.seed, 201), 5)
    local x = tycho.cat({ val_embeddings:index_select(first), val_embeddings:index_select(second) }, 1)
    local score = probe:score(x, actions)
    score.floor = metrics.floor(actions:narrow(1, 0, 4))
    return score
  end)
end

-- options: lengths (context lengths), block_size, context_seed, probe = {epochs, learning_rate, batch_size, seed}.
-- Returns {r2 = {rot = {[c] = {rotation, color}}, color = ...}, r2_probe = the same, floor = {rotation, color}, floor_probe = {...}}.
function M.by_context(model, train, val, options)
  local modes = { 'rot', 'color' }
  return model:evaluating(function()
    local line = progress('features', train:size() * train.views)
    local train_features, train_states = M.features(model, train, line)
    local val_features, states = M.features(model, val, line)
    line:finish(('encoded %d images in %.0f s'):format(train_states:size(0) + states:size(0), line:elapsed()))
    local examples = train:context(options.block_size / 2, options.context_seed)
    local result = { r2 = {}, r2_probe = {}, floor = { rotation = metrics.floor(states:narrow(1, 0, 4)),
      color = metrics.floor(states:narrow(1, 4, 2)) }, floor_probe = { color = 0 } }
    line = progress('probes', #modes * #options.lengths)
    local done, alone, alone_probe = 0, nil, nil
    for _, mode in ipairs(modes) do
      local memory = context.encode(model, examples, mode)
      result.r2[mode], result.r2_probe[mode] = {}, {}
      for _, c in ipairs(options.lengths) do
        local score, probe
        if c == 0 and alone then
          score, probe = alone, alone_probe
        else
          score, probe = tycho.scope(function()
            local cut = context.cut(memory, c)
            local z_train, z_val = M.embeddings(model, train_features, cut), M.embeddings(model, val_features, cut)
            return readout(model, z_val, states), tycho.with_grad(probe_score, train, val, z_train, z_val, options.probe)
          end)
          if c == 0 then alone, alone_probe = score, probe end
        end
        result.r2[mode][c], result.r2_probe[mode][c] = score, { rotation = probe.rotation, color = probe.color }
        result.floor_probe.rotation = probe.floor
        done = done + 1
        line:update(done, ('%s context, %d tokens'):format(mode, c))
      end
    end
    line:finish(('evaluated %d contexts in %.0f s'):format(done, line:elapsed()))
    return result
  end)
end

return M
