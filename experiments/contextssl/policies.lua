-- The parts of the method, each a function that a script may replace. One file changes the method: it sets what it changes, then runs main.lua.
--
--   local policies = require 'experiments.contextssl.policies'
--   function policies.environment(config, generator) return generator:uniform() < 0.9 and 'rot' or 'color' end
--   function policies.terms.size(step) return step.prediction:square():mean() * 0.01 end
--   dofile 'experiments/main.lua'
--
-- A generator's draws follow from the seed, its purpose and the step. Take randomness from nowhere else: then a resumed run equals an
-- uninterrupted one. A misspelt name is an error.
local tycho = require 'tycho'
local schedule = require 'tycho.train.schedule'
local context_mask = require 'experiments.contextssl.context_mask'
local data = require 'experiments.contextssl.data'
local environments = require 'experiments.contextssl.environments'
local gallery = require 'experiments.contextssl.gallery'
local models = require 'experiments.contextssl.model'
local monitor = require 'experiments.contextssl.monitor'
local objective = require 'experiments.contextssl.objective'
local unknown = require 'experiments.contextssl.unknown'

local M = {}

-- The data set of a split, 'train' or 'val': what data.lua's Dataset can do.
function M.data(config, split) return data.of(config, split) end

-- The model, heads included, with random weights: those of config.init_from, or of the file that an evaluation is about, are loaded into it.
function M.model(config) return models.ContextSSL(config) end

-- What turns gradients of the parameters into steps (tycho.train.checkpoint keeps its state_dict).
function M.optimizer(config, parameters) return tycho.optim.Adam(parameters, { weight_decay = config.weight_decay }) end

-- The learning rate of step `iteration` (from 0) of `total`, per_epoch steps being an epoch.
function M.learning_rate(config, iteration, per_epoch, total)
  return schedule.warmup_cosine(config.learning_rate * config.batch_size / 256, iteration, config.warmup_epochs * per_epoch, total)
end

-- Pairs of views of objects (list of numbers from 0): list of {object, view 1, view 2}.
function M.pairs(dataset, objects, generator) return dataset:draw_pairs(objects, generator) end

-- The batch to train on: x (2B,3,H,W) with views interleaved, r (B,6), latents (B,2,6), y (B). The reference augments nothing.
function M.augment(batch) return batch end -- (batch, config, generator)

-- The environment of a batch: 'rot', 'color' or 'rotcolor'.
function M.environment(config, generator) return environments.sample(config.env_ratio, generator) end

-- One mask (T,T) for each layer: what a token may attend to.
M.masks = context_mask.training_masks -- (config, generator)

-- Terms of the loss by name: function(step) that returns a scalar to add, or nil.
M.terms = objective.terms

-- The loss: (model, probe, batch, environment, masks, config) -> scalar, and a table that M.measure reads.
M.losses = objective.losses

-- Adds what is logged of a step to the meters: (meters, out, batch, environment, config).
M.measure = objective.measure

-- What is looked at every log_interval epochs: a function(model, probe) that returns numbers to log, by name; nil when it was interrupted.
function M.monitor(train, val, config) return monitor.new(train, val, config) end

-- Draws pictures of the trained model into the run's directory, for its report.
function M.pictures(run, model, train, val, config) gallery.draw(run, model, train, val, config) end

local known = {}
for name in pairs(M) do known[name] = true end

return setmetatable(M, { __newindex = function(_, name) unknown('policy', name, known, 2) end })
