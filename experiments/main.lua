-- Trains ContextSSL on 3DIEBench (Gupta et al. 2024).
--   ./tycho experiments/main.lua data_dir=DIR key=value ...        every key: ./tycho experiments/main.lua --help
-- To change a part of the method, replace its policy in a script of your own: experiments/contextssl/policies.lua.
local config_file = require 'tycho.config'
local policies = require 'experiments.contextssl.policies'
local report = require 'tycho.runs.report'
local settings = require 'experiments.contextssl.settings'
local training = require 'experiments.contextssl.training'

-- settings
local config = settings.load('config.yml', arg)
config_file.require_path(config, 'data_dir', ', the folder with 3DIEBench/ and meta/; to try without it, render a toy data set: '
  .. './tycho experiments/toy3d.lua out=data/toy3d')

-- data
local train, val = policies.data(config, 'train'), policies.data(config, 'val')
print(('%d objects, %d views each, %d classes'):format(train:size(), train.views, train.classes))

-- training
local model, run, finished = training.run(config, train, { name = config.name, monitor = policies.monitor(train, val, config) })
if not finished then os.exit(130) end

-- report
policies.pictures(run, model, train, val, config)
print('report: ' .. report.write(run.path))
print('run: ' .. run.path)
