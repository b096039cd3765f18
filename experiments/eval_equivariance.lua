-- R2 of the action between two views (rotation, colour) from a saved model's embeddings, by context length: the paper's figure 3.
--   ./tycho experiments/eval_equivariance.lua data_dir=DIR pretrained_model_dir=DIR load_model=FILE key=value ...     keys: --help
-- Disk: 4 bytes a number for the features and for every context of all images, kept in cache_dir. With 3DIEBench and the six lengths of the
-- published run that is 17 times 5.4 GB, 91 GB; the other evaluations use the same files.
local evaluation = require 'experiments.contextssl.evaluation'
local pair_probes = require 'experiments.contextssl.pair_probes'
local report = require 'experiments.contextssl.report'
local settings = require 'experiments.contextssl.settings'

-- settings, data, model
local config = settings.load('eval_config.yml', arg)
local session = evaluation.open(config)
local modes, lengths = evaluation.modes(config), config.eval_ctxt

-- embeddings
local contexts, position = evaluation.contexts(modes, lengths)
if not session.store:compute(pair_probes.pieces(session.store, contexts)) then os.exit(130) end

-- probes
local run = evaluation.start(config, 'eval_equivariance')
local function rows_of(scores)
  local rows = evaluation.rows(scores, 'z+', position, modes, lengths, 1)
  table.insert(rows, 1, evaluation.row(scores, 1, 'features'))
  return rows
end
local scores, floor = pair_probes.run(session.store, contexts, {
  epochs = config.epochs, batch_size = config.batch_size, learning_rate = config.learning_rate, seed = config.seed,
  log_interval = config.log_interval, log = function(epoch, loss, now) evaluation.log(run, epoch, loss, rows_of(now)) end,
})
if not scores then os.exit(130) end

-- results
local rows = rows_of(scores)
local metrics = { { name = 'rotation', key = 'rotation_r2', floor = floor.rotation }, { name = 'colour', key = 'color_r2', floor = floor.color } }
report.table { title = 'R2 of the action between two views, held-out objects', rows = rows, embedding = 'z+', modes = modes, lengths = lengths,
  metrics = metrics, floor_name = 'constant' }
report.write(run, evaluation.results(session, 'eval_equivariance', rows, { epochs = config.epochs, floor = floor }), metrics)
report.draw(run, 'r2_by_context', report.figure(rows, 'z+', modes, lengths, floor.rotation, 'R2, probes on pairs'))
