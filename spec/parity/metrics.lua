-- Checks the scores: R2, R2 by context position, top-1, kNN and ranks.
local tycho = require 'tycho'
local json = require 'tycho.io.json'
local npz = require 'tycho.io.npz'
local knn = require 'experiments.contextssl.knn'
local metrics = require 'experiments.contextssl.metrics'
local ranking = require 'experiments.contextssl.ranking'
local compare = require 'spec.parity.compare'

local function count_wrong(list, expected)
  local wrong = math.abs(#list - expected:numel())
  for i, value in ipairs(list) do
    if i <= expected:numel() and value ~= tonumber(expected:ptr()[i - 1]) then wrong = wrong + 1 end
  end
  return wrong
end

local function check_positions(dir, check)
  local a, expected = npz.load(dir .. '/evaluate_with_context.npz'), json.load(dir .. '/evaluate_with_context.json')
  local T, positions = expected.block_size, expected.test_at
  for _, entry in ipairs(metrics.r2_by_position(a.logits, a.y, T, positions)) do
    local key = ('r2_c=%d'):format(entry[1])
    check.abs('evaluate_with_context ' .. key, entry[2]:item(), expected.r2[key], 1e-5)
  end
  local logits, labels = metrics.at_positions(a.class_logits, T, positions), metrics.at_positions(a.class_y:reshape { -1, 1 }, T, positions)
  for i, position in ipairs(positions) do
    local key = ('acc_c=%d'):format(position)
    local accuracy = metrics.accuracy(logits:select(0, i - 1), labels:select(0, i - 1):reshape { -1 })
    check.abs('evaluate_with_context ' .. key, accuracy, expected.accuracy[key], 1e-5)
  end
end

-- t: temperature.
local function check_knn(dir, t, report, check)
  local a = npz.load(dir .. '/knn_predict.npz')
  for key in pairs(a) do
    local k = tonumber(key:match('^acc_k(%d+)$'))
    if k then
      local classes = a['pred_order_k' .. k]:size(1)
      local predictions = knn.predict(a.query, a.bank, a.bank_labels, classes, k, t)
      check.abs(('knn_predict k=%d accuracy'):format(k), knn.accuracy(predictions, a.query_labels), a[key], 1e-6)
      local wrong = 0
      for i, voted in ipairs(predictions) do
        if voted[1] ~= tonumber(a['pred_top1_k' .. k]:ptr()[i - 1]) then wrong = wrong + 1 end
        local determined = tonumber(a['n_classes_with_votes_k' .. k]:ptr()[i - 1])
        if #voted ~= determined then wrong = wrong + 1 end
        for j = 1, determined do
          if voted[j] ~= a['pred_order_k' .. k][i - 1][j - 1]:item() then wrong = wrong + 1 end
        end
      end
      report(('knn_predict k=%d order'):format(k), wrong, 0, wrong == 0)
    end
  end
end

-- The stand-in network of the monitor: features are flattened images, predictions features times W.
local function check_monitor(dir, expected, check)
  local a = npz.load(dir .. '/knn_monitor.npz')
  local function rows(images) return images:reshape { images:size(0) * 2, images:numel() / images:size(0) / 2 } end
  local function twice(labels)
    return tycho.stack({ labels:to('f64'), labels:to('f64') }, 1):reshape({ -1 }):to('i64')
  end
  local bank, query = rows(a.memory), rows(a.test)
  local bank_labels, labels = twice(a.memory_labels), twice(a.test_labels)
  local classes = 0
  for _, label in ipairs(bank_labels:tolist()) do classes = math.max(classes, label + 1) end
  for name, transform in pairs { feat = function(x) return x end, pred = function(x) return x:matmul(a.W) end } do
    local predictions = knn.predict(transform(query):normalize(), transform(bank):normalize(), bank_labels, classes, expected.k, expected.t)
    check.abs('knn_monitor ' .. name, knn.accuracy(predictions, labels), expected['meter_' .. name], 1e-6)
  end
end

local function check_ranks(dir, expected, report, check)
  local a = npz.load(dir .. '/mrr.npz')
  for key in pairs(a) do
    local case = key:match('^zr/(.*)$')
    if case then
      local ranks, kept = ranking.ranks(a[key], a['zplus/' .. case], a.target_index, expected.views_per_object, expected.normalise)
      local wrong = count_wrong(ranks, a['ranks/' .. case]) + count_wrong(kept, a.kept_queries)
      report('mrr ranks ' .. case, wrong, 0, wrong == 0)
      check.abs('mrr metrics ' .. case, tycho.tensor(ranking.summary(ranks)), a['metrics/' .. case], 1e-5)
    end
  end
end

return function(dir, report)
  local check = compare.reporter(report)
  -- Skipped where one of the files is not there.
  local function guarded(name, files, fn)
    for i, file in ipairs(files) do files[i] = dir .. '/' .. file end
    compare.guard(report, name, fn, files)
  end
  local function settings() return json.load(dir .. '/metrics.json') end
  guarded('r2_score', { 'r2_score.npz' }, function()
    local a = npz.load(dir .. '/r2_score.npz')
    for i = 0, a.r2:numel() - 1 do
      check.l2('r2_score ' .. i, metrics.r2(a['output' .. i], a['target' .. i]), a.r2[i], 1e-5)
    end
  end)
  guarded('evaluate_with_context', { 'evaluate_with_context.npz', 'evaluate_with_context.json' }, function() check_positions(dir, check) end)
  guarded('top1', { 'top1.npz' }, function()
    local a = npz.load(dir .. '/top1.npz')
    check.abs('top1', metrics.accuracy(a.logits, a.y), a.acc, 1e-6)
  end)
  guarded('knn_predict', { 'knn_predict.npz', 'metrics.json' }, function() check_knn(dir, settings().knn_monitor.t, report, check) end)
  guarded('knn_monitor', { 'knn_monitor.npz', 'metrics.json' }, function() check_monitor(dir, settings().knn_monitor, check) end)
  guarded('mrr', { 'mrr.npz', 'metrics.json' }, function() check_ranks(dir, settings().mrr, report, check) end)
end
