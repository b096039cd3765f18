-- The whole method in ten minutes on a CPU: renders toy3d, trains ContextSSL, and shows what a context does to the representation.
--   ./tycho experiments/demo.lua key=value ...       settings and their meaning: experiments/demo.yml
local lfs = require 'lfs'
local embeddings = require 'experiments.contextssl.embeddings'
local evaluation = require 'experiments.contextssl.evaluation'
local pair_probes = require 'experiments.contextssl.pair_probes'
local readout = require 'experiments.contextssl.readout'
local report = require 'experiments.contextssl.report'
local settings = require 'experiments.contextssl.settings'
local toy3d = require 'experiments.contextssl.toy3d'
local training = require 'experiments.contextssl.training'

-- settings
local config = settings.load('demo.yml', arg)
local modes, lengths = { 'rot', 'color' }, config.eval_ctxt

-- data
if not lfs.attributes(config.data_dir) then
  toy3d.render { out = config.data_dir, objects = config.toy_objects, val_objects = config.toy_val_objects, views = config.toy_views,
    size = config.resolution, classes = config.classes, seed = config.toy_seed }
end
local train, val = training.policies.data(config, 'train'), training.policies.data(config, 'val')

-- training
local model, run, finished = training.run(config, train, { name = config.name, monitor = training.policies.monitor(train, val, config) })
if not finished then os.exit(130) end

-- evaluation
local store = embeddings.open(model, { train = train, val = val }, config)
local contexts, position = evaluation.contexts(modes, lengths)
if not store:compute(pair_probes.pieces(store, contexts)) then os.exit(130) end
local read, read_floor = readout.run(store, contexts)
local probed, probed_floor = pair_probes.run(store, contexts, { epochs = config.probe_epochs, batch_size = 256, learning_rate = 1e-3,
  seed = config.seed })
if not probed then os.exit(130) end
local read_rows = evaluation.rows(read, 'read-out', position, modes, lengths)
local probed_rows = evaluation.rows(probed, 'z+', position, modes, lengths, 1)

-- results
local function metrics_with(floor)
  return { { name = 'rotation', key = 'rotation_r2', floor = floor.rotation }, { name = 'colour', key = 'color_r2', floor = floor.color } }
end
local function show(title, rows, embedding, floor)
  report.table { title = title, rows = rows, embedding = embedding, modes = modes, lengths = lengths, metrics = metrics_with(floor), by = 'mode',
    floor_name = 'constant' }
end
print('\nR2 on held-out objects by context length')
show('Trained read-out (aug_predictor on z+): each view\'s own rotation and hues', read_rows, 'read-out', read_floor)
show('Freshly trained pair probes on z+: the action between two views', probed_rows, 'z+', probed_floor)

-- What falls (the read-out) and what a freshly trained probe still finds.
local first, last = lengths[1], lengths[#lengths]
local function r2(rows, embedding, mode, c) return report.find(rows, embedding, mode, c) end
print(('\nBehind %d tokens of rotation context the read-out\'s colour R2 falls from %.2f to %.2f, behind colour context its rotation R2 from '
  .. '%.2f to %.2f (no parameter changes);\nprobes trained anew behind that context still find %.2f of the colour (%.2f with %d tokens) '
  .. 'and %.2f of the rotation (%.2f with %d tokens).'):format(last,
  r2(read_rows, 'read-out', 'rot', first).color_r2, r2(read_rows, 'read-out', 'rot', last).color_r2,
  r2(read_rows, 'read-out', 'color', first).rotation_r2, r2(read_rows, 'read-out', 'color', last).rotation_r2,
  r2(probed_rows, 'z+', 'rot', last).color_r2, r2(probed_rows, 'z+', 'rot', first).color_r2, first,
  r2(probed_rows, 'z+', 'color', last).rotation_r2, r2(probed_rows, 'z+', 'color', first).rotation_r2, first))

local rows = {}
for _, list in ipairs { read_rows, probed_rows } do
  for _, row in ipairs(list) do rows[#rows + 1] = row end
end
training.policies.pictures(run, model, train, val, config)
report.write(run, { evaluation = 'demo', rows = rows, floor = { readout = read_floor, probes = probed_floor }, seed = config.seed },
  metrics_with(read_floor))
report.draw(run, 'r2_by_context', report.figure(read_rows, 'read-out', modes, lengths, read_floor.rotation, 'R2, trained read-out'))
