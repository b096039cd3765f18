-- Trains ContextSSL on 3DIEBench (Gupta et al. 2024).
--   ./tycho experiments/main.lua data_dir=DIR key=value ...        every key: ./tycho experiments/main.lua --help
local tycho = require 'tycho'
local config_file = require 'tycho.config'
local apply_settings = require 'experiments.contextssl.settings'
local data = require 'experiments.contextssl.data'
local monitor = require 'experiments.contextssl.monitor'
local training = require 'experiments.contextssl.training'

-- settings
local config = config_file.load(tycho.lib.root .. '/experiments/config.yml', arg)
config_file.require_path(config, 'data_dir')
apply_settings(config)

-- data
local function open(split)
  return data.open { data_dir = config.data_dir, split = split, resolution = config.resolution, image_mean = config.image_mean,
    image_std = config.image_std }
end
local train, val = open 'train', open 'val'
print(('%d objects, %d views each, %d classes'):format(train:size(), train.views, train.classes))

-- policies: replace any of these functions to change the method, for example
-- training.policies.environment = function(config, generator) return 'rot' end

-- training
local _, run = training.run(config, train, { name = config.name, command = './tycho experiments/main.lua',
  monitor = monitor.new(train, val, config) })
print('run: ' .. run.path)
