-- Class accuracy, and R2 of each view's own rotation and colour, from single embeddings of a saved model, by context length.
--   ./tycho experiments/linear_probe.lua data_dir=DIR pretrained_model_dir=DIR load_model=FILE key=value ...     keys: --help
-- Disk: 4 bytes a number for the features, for every context and for every context with an action, of all images, kept in cache_dir. With
-- 3DIEBench and the six lengths of the published run that is 29 times 5.4 GB, 156 GB; the 91 GB of eval_equivariance.lua are among them.
local evaluation = require 'experiments.contextssl.evaluation'
local report = require 'experiments.contextssl.report'
local settings = require 'experiments.contextssl.settings'
local single_probes = require 'experiments.contextssl.single_probes'

-- settings, data, model
local config = settings.load('eval_config.yml', arg)
local session = evaluation.open(config)
local modes, lengths = evaluation.modes(config), config.eval_ctxt
local modes_of_zr = config.is_invariant and {} or { 'rot', 'color' }

-- embeddings
local contexts, position = evaluation.contexts(modes, lengths)
local inputs = {}
for i, context in ipairs(contexts) do inputs[i] = { 'zplus', unpack(context) } end
for _, mode in ipairs(modes_of_zr) do
  for _, c in ipairs(lengths) do inputs[#inputs + 1] = { 'zr', mode, c } end
end
if not session.store:compute(single_probes.pieces(session.store, inputs)) then os.exit(130) end

-- probes
local run = evaluation.start(config, 'linear_probe')
local function rows_of(scores)
  local rows = evaluation.rows(scores, 'z+', position, modes, lengths, 1)
  table.insert(rows, 1, evaluation.row(scores, 1, 'features'))
  for i = #contexts + 1, #inputs do rows[#rows + 1] = evaluation.row(scores, 1 + i, 'zr', inputs[i][2], inputs[i][3]) end
  return rows
end
local scores, floor = single_probes.run(session.store, inputs, {
  epochs = config.epochs, batch_size = config.batch_size, learning_rate = config.learning_rate, seed = config.seed,
  log_interval = config.log_interval, log = function(epoch, loss, now) evaluation.log(run, epoch, loss, rows_of(now)) end,
})
if not scores then os.exit(130) end

-- results
local rows = rows_of(scores)
local metrics = { { name = 'top-1', key = 'top1' }, { name = 'rotation', key = 'rotation_r2', floor = floor.rotation },
  { name = 'colour', key = 'color_r2', floor = floor.color } }
local function show(embedding, shown_modes, title)
  report.table { title = title, rows = rows, embedding = embedding, modes = shown_modes, lengths = lengths, metrics = metrics,
    floor_name = 'constant' }
end
show('z+', modes, 'Features and z+ of all held-out images: accuracy of the class, R2 of their own rotation and colour')
if #modes_of_zr > 0 then
  show('zr', modes_of_zr, 'zr: the same, and R2 of the rotation (rot) or colour (color) that the action leads to')
end
report.write(run, evaluation.results(session, 'linear_probe', rows, { epochs = config.epochs, floor = floor }), metrics)
