-- What the evaluation scripts begin with: the saved model, both splits of the data, the store of embeddings, and the list of
-- contexts; and what they end with: results by mode and context length in a run directory.
local config_file = require 'tycho.config'
local device = require 'tycho.device'
local run_directory = require 'tycho.train.run'
local ask = require 'experiments.contextssl.ask'
local embeddings = require 'experiments.contextssl.embeddings'
local pretrained = require 'experiments.contextssl.pretrained'

local M = {}

-- Modes of the contexts: with actions rot, color and none; a model without actions knows only none.
function M.modes(config) return config.is_invariant and { 'none' } or { 'rot', 'color', 'none' } end

-- Everything that an evaluation needs, or an error before anything long has begun.
function M.open(config)
  config_file.require_path(config, 'data_dir')
  local path = pretrained.path(config)
  local model = pretrained.load(path, config):to(device.choose(config.device or 'cpu')):eval()
  local self = { config = config, path = path, model = model }
  local datasets = {}
  for _, split in ipairs { 'train', 'val' } do
    datasets[split] = ask('data', config, split)
    print(('%s: %d objects, %d views each'):format(split, datasets[split]:size(), datasets[split].views))
  end
  local pairs_wanted, there = config.block_size / 2, datasets[config.cache_type]:size()
  if there < pairs_wanted then
    print(('the context of %d pairs is drawn from %d objects: some come more than once'):format(pairs_wanted, there))
  end
  self.datasets = datasets
  self.store = embeddings.open(self.model, datasets, config)
  return self
end

-- A directory for the results of a script.
function M.start(config, script)
  local run = run_directory.create(config.out, config.name ~= '' and config.name or script, { config = config_file.dump(config),
    path = config.run_dir ~= '' and config.run_dir or nil })
  run:say(device.line(config.device or 'cpu'))
  for _, note in ipairs(config_file.notes(config)) do run:say(note) end
  return run
end

-- Every z+ once: list of {mode, c}, and the position in it by mode and c (without context all modes are one).
function M.contexts(modes, lengths)
  local list, position = {}, {}
  for _, mode in ipairs(modes) do
    position[mode] = {}
    for _, c in ipairs(lengths) do
      if c == 0 and mode ~= modes[1] then
        position[mode][c] = position[modes[1]][c]
      else
        list[#list + 1] = { mode, c }
        position[mode][c] = #list
      end
    end
  end
  return list, position
end

-- Rows of results (report.lua) of all modes and lengths, from lists of scores by metric key. position: of M.contexts; before: how many scores come
-- before those of the contexts (default 0).
function M.rows(scores, embedding, position, modes, lengths, before)
  local rows = {}
  for _, mode in ipairs(modes) do
    for _, c in ipairs(lengths) do rows[#rows + 1] = M.row(scores, (before or 0) + position[mode][c], embedding, mode, c) end
  end
  return rows
end

-- One row from entry i of lists of scores by metric key.
function M.row(scores, i, embedding, mode, c)
  local row = { embedding = embedding, split = 'val', mode = mode, context = c }
  for key, list in pairs(scores) do row[key] = list[i] end
  return row
end

-- Logs the rows of an epoch in metrics.jsonl, under names such as z+/rot/c2/color_r2.
function M.log(run, epoch, loss, rows)
  local values = { epoch = epoch, loss = loss }
  for _, row in ipairs(rows) do
    local name = row.mode and ('%s/%s/c%d'):format(row.embedding, row.mode, row.context) or row.embedding
    for key, value in pairs(row) do
      if type(value) == 'number' and key ~= 'context' then values[name .. '/' .. key] = value end
    end
  end
  run:log(values)
end

-- What results.json says beside the rows.
function M.results(self, script, rows, more)
  local config = self.config
  local results = { evaluation = script, model = self.path, data_dir = config.data_dir, embeddings = self.store.folder, seed = config.seed,
    context_seed = config.context_seed, eval_ctxt = config.eval_ctxt, rows = rows }
  for key, value in pairs(more) do results[key] = value end
  return results
end

return M
