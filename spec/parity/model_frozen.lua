-- Checks of the frozen network: features, memories, embeddings behind them, whole sequences, and the evaluation with a context.
local context = require 'experiments.contextssl.context'
local environments = require 'experiments.contextssl.environments'
local metrics = require 'experiments.contextssl.metrics'
local monitor = require 'experiments.contextssl.monitor'
local compare = require 'spec.parity.compare'
local folder = require 'spec.parity.folder'
local network = require 'spec.parity.model_network'

local M = {}

local OUTPUT = 1e-5 -- relative

-- {key, mode, c} of the arrays FIRST/MODE/cC.
local function cases(archive, first)
  local out = {}
  for key in pairs(archive) do
    local mode, c = key:match('^' .. first .. '/(%w+)/c(%d+)$')
    if mode then out[#out + 1] = { key = key, mode = mode, c = tonumber(c) } end
  end
  table.sort(out, function(a, b) return a.key < b.key end)
  return out
end

local function open_context(self)
  local cache = folder.arrays(self.dir .. '/cache.npz')
  return { x = cache.cache_x, r = cache.cache_r }
end

-- The folder does not say how many rows the short sequence began with: the number that fits best.
local function check_short(self, check, model, f, r, expected)
  local best, best_error
  for rows = 2, math.min(self.config.block_size, f:size(0)), 2 do
    local y = model.predictor:padded(f:narrow(0, 0, rows), r:narrow(0, 0, rows / 2), network.pair_mask(self))
    local distance = compare.rel_l2(y, expected)
    if not best or distance < best_error then best, best_error = y, distance end
  end
  check.l2('eval short prediction', best, expected, network.bound(self, OUTPUT, 'eval_outputs', 'short/prediction'))
end

function M.outputs(self, check)
  local expected, kv = folder.arrays(self.dir .. '/eval_outputs.npz'), folder.arrays(self.dir .. '/eval_kv_cache.npz')
  local a, examples = self.batch, open_context(self)
  local model, probe = network.build(self)
  local function l2(key, got) check.l2('eval ' .. key, got, expected[key], network.bound(self, OUTPUT, 'eval_outputs', key)) end
  model:evaluating(function()
    local f = model.enc(a.x)
    l2('feature', f)
    local memories = {}
    local function memory(mode, c)
      memories[mode] = memories[mode] or context.encode(model, examples, mode)
      return context.cut(memories[mode], c)
    end
    for key, value in pairs(kv) do
      local mode, c, what, layer = key:match('^(%w+)/c(%d+)/([kv])(%d+)$')
      if mode then
        check.l2('eval memory ' .. key, memory(mode, tonumber(c))[tonumber(layer) + 1][what], value[0],
          network.bound(self, OUTPUT, 'eval_kv_cache', key))
      end
    end
    for _, case in ipairs(cases(expected, 'rplus')) do l2(case.key, context.embed(model, f, nil, memory(case.mode, case.c))) end
    for _, case in ipairs(cases(expected, 'train')) do
      l2(case.key, monitor.embed(model, f, a.r, case.mode, memory(case.mode, case.c)))
    end
    for key in pairs(expected) do
      local mode = key:match('^forward/(%w+)$')
      if mode then
        local p = model.predictor(f, environments.restrict(a.r, mode), network.pair_mask(self))
        l2(key, p)
        if mode == 'rot' then
          local feat, pred = probe(f, p)
          l2('online/feat', feat)
          l2('online/pred', pred)
        end
      end
    end
    local rows, r = expected['pad/feature']:size(0), environments.restrict(a.r, 'rot')
    l2('pad/feature', f:narrow(0, 0, rows))
    l2('pad/prediction', (model.predictor:padded(f:narrow(0, 0, rows), r:narrow(0, 0, rows / 2), network.pair_mask(self))))
    check_short(self, check, model, f, r, expected['short/prediction'])
  end)
end

-- What the training evaluates with a fixed context: R2 of the read-out and accuracy of the online probe, by mode and context length.
function M.cached_evaluation(self, check)
  local expected, examples = folder.json(self.dir .. '/evaluation_with_cache.json'), open_context(self)
  local model, probe = network.build(self)
  model:evaluating(function()
    for mode, want in pairs(expected) do
      local n = want.batches * want.batch_size
      local f, r = model.enc(self.batch.x:narrow(0, 0, 2 * n)), self.batch.r:narrow(0, 0, n)
      local states = self.batch.latents:narrow(0, 0, n):reshape { -1, self.batch.latents:size(2) }
      local memory = context.encode(model, examples, mode)
      for key, scores in pairs(want.r2_unrounded) do
        local z = monitor.embed(model, f, r, mode, context.cut(memory, tonumber(key:match('%d+'))))
        local readout = model.aug_predictor(self.config.eval_normalize and z:normalize() or z)
        local got = monitor.scores(readout, states, mode)
        for name, score in pairs(scores) do
          local attribute, token = name:match('^(%w+)_(.*)$')
          check.abs(('evaluation %s %s %s'):format(mode, key, name), got[token .. '/' .. (attribute == 'rot' and 'rotation' or 'color')],
            score, 1e-5 * math.max(1, math.abs(score)))
        end
        local feat, pred = probe(f, z)
        -- zr is the first view of a pair, z+ the second; the reference takes the second view's features for both.
        for _, entry in ipairs { { 'feat', 'zr', feat, 1 }, { 'feat', 'z+', feat, 1 }, { 'pred', 'zr', pred, 0 }, { 'pred', 'z+', pred, 1 } } do
          local what, token, logits, view = unpack(entry)
          local rows = logits:reshape({ n, 2, logits:size(1) }):select(1, view)
          check.abs(('evaluation %s %s accuracy %s %s'):format(mode, key, what, token), metrics.accuracy(rows, self.batch.y:narrow(0, 0, n)),
            want.logs['Test acc ' .. what][token][key], 5.1e-5)
        end
      end
    end
  end)
end

return M
