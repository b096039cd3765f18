-- The whole method in ten minutes on a CPU: renders toy3d, trains ContextSSL, and shows what a context does to the representation.
--   ./tycho experiments/demo.lua key=value ...       settings and their meaning: experiments/demo.yml
local lfs = require 'lfs'
local data = require 'experiments.contextssl.data'
local evaluation = require 'experiments.contextssl.evaluation'
local report = require 'experiments.contextssl.report'
local settings = require 'experiments.contextssl.settings'
local toy3d = require 'experiments.contextssl.toy3d'
local monitor = require 'experiments.contextssl.monitor'
local training = require 'experiments.contextssl.training'

-- settings
local config = settings.load('demo.yml', arg)

-- data
if not lfs.attributes(config.data_dir) then
  toy3d.render { out = config.data_dir, objects = config.toy_objects, val_objects = config.toy_val_objects, views = config.toy_views,
    size = config.resolution, classes = config.toy_classes, seed = config.toy_seed }
end
local function open(split)
  return data.open { data_dir = config.data_dir, split = split, resolution = config.resolution, image_mean = config.image_mean,
    image_std = config.image_std }
end
local train, val = open 'train', open 'val'

-- training
local model, run, finished = training.run(config, train, { name = config.name, monitor = monitor.new(train, val, config) })
if not finished then os.exit(130) end

-- evaluation
local result = evaluation.by_context(model, train, val, {
  lengths = config.eval_ctxt, block_size = config.block_size, context_seed = config.context_seed,
  probe = { epochs = config.probe_epochs, learning_rate = 1e-3, batch_size = 256, seed = config.seed },
})
report.print(result, config.eval_ctxt)
report.write(result, config, run)
