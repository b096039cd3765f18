-- Mean reciprocal rank and hit rates of a saved model, by context length: how well the embedding of view 0 with an action finds the view that the
-- action leads to, among all views of its object (the paper's table 1).
--   ./tycho experiments/eval_MRR_Hk.lua data_dir=DIR pretrained_model_dir=DIR load_model=FILE split=val key=value ...     keys: --help
-- Disk: as eval_equivariance.lua, for one split: with 3DIEBench's val split and the six lengths of the published run 12 times 1.1 GB.
local evaluation = require 'experiments.contextssl.evaluation'
local ranking = require 'experiments.contextssl.ranking'
local report = require 'experiments.contextssl.report'
local settings = require 'experiments.contextssl.settings'

-- settings, data, model
local config = settings.load('eval_config.yml', arg)
if config.is_invariant then error('is_invariant=True: a model without actions has no embedding after an action', 0) end
local session = evaluation.open(config)
local modes, lengths, split = { 'rot', 'color' }, config.eval_ctxt, config.split

-- embeddings and ranks
local store = session.store
local pieces = { store:piece('states', split), store:piece('features', split) }
for _, context in ipairs((evaluation.contexts(modes, lengths))) do pieces[#pieces + 1] = store:piece('zplus', split, unpack(context)) end
for _, mode in ipairs(modes) do
  for _, c in ipairs(lengths) do pieces[#pieces + 1] = store:piece('ranks', split, mode, c) end
end
if not store:compute(pieces) then os.exit(130) end

-- results
local run = evaluation.start(config, 'eval_MRR_Hk')
local chance, metrics, rows = ranking.chance(session.datasets[split].views), {}, {}
for i, name in ipairs(ranking.NAMES) do metrics[i] = { name = name, key = name, floor = chance[i] } end
for _, mode in ipairs(modes) do
  for _, c in ipairs(lengths) do
    local row = { embedding = 'zr', split = split, mode = mode, context = c }
    for i, value in ipairs(ranking.summary(store:get('ranks', split, mode, c):tolist())) do row[ranking.NAMES[i]] = value end
    rows[#rows + 1] = row
  end
end
report.table { title = ('Rank of the view that the action leads to, %s split'):format(split), rows = rows, embedding = 'zr', modes = modes,
  lengths = lengths, metrics = metrics, by = 'mode', floor_name = 'chance' }
report.write(run, evaluation.results(session, 'eval_MRR_Hk', rows, { split = split, eval_normalize = config.eval_normalize }), metrics)
