-- The training loop. Every policy is a function in M.policies that a script may replace before it calls M.run.
-- Every random draw is a pure function of (seed, purpose, iteration), so a resumed run equals an uninterrupted one.
local lfs = require 'lfs'
local tycho = require 'tycho'
local lib = require 'tycho.lib'
local config_file = require 'tycho.config'
local checkpoint = require 'tycho.train.checkpoint'
local progress = require 'tycho.train.progress'
local pt = require 'tycho.io.pt'
local run_directory = require 'tycho.train.run'
local schedule = require 'tycho.train.schedule'
local models = require 'experiments.contextssl.model'
local environments = require 'experiments.contextssl.environments'
local context_mask = require 'experiments.contextssl.context_mask'
local objective = require 'experiments.contextssl.objective'
local rng = require 'tycho.rng'

local M = {}

M.policies = {
  environment = function(config, generator) return environments.sample(config.env_ratio, generator) end,
  masks = context_mask.training_masks,
  losses = objective.losses,
}

-- Independent uses of one seed.
local ORDER, VIEWS, ENVIRONMENT, MASK, PURPOSES = 1, 2, 3, 4, 16
local function draws(seed, purpose, iteration) return tycho.generator(seed, purpose + PURPOSES * (iteration + 1)) end

local function build(config, dataset)
  rng.seed(config.seed)
  local model = models.ContextSSL(config)
  local features = model.enc.features
  local probe = models.OnlineProbe(features, config.projection_dim, dataset.classes)
  local optimizer = tycho.optim.Adam(model:parameters(), { weight_decay = config.weight_decay })
  local probe_optimizer = tycho.optim.Adam(probe:parameters(), { lr = 1e-3, weight_decay = 1e-6 })
  return { modules = { model = model, probe = probe }, optimizers = { optimizer = optimizer, probe_optimizer = probe_optimizer } }
end

-- The objects of one iteration: an epoch is a random order of all of them, its last batch may be smaller.
local function objects_of(dataset, config, iteration, per_epoch, cache)
  local epoch = math.floor(iteration / per_epoch)
  if cache.epoch ~= epoch then cache.epoch, cache.order = epoch, draws(config.seed, ORDER, epoch):permutation(dataset:size()) end
  local list, first = {}, iteration % per_epoch * config.batch_size
  for i = 1, math.min(config.batch_size, dataset:size() - first) do list[i] = cache.order[first + i] end
  return list
end

-- One optimiser step on a batch. Returns M.policies.losses' table of tensors reduced to numbers, if report is true.
local function step(parts, batch, environment, masks, config, lr, report)
  local model, probe = parts.modules.model, parts.modules.probe
  local optimizer, probe_optimizer = parts.optimizers.optimizer, parts.optimizers.probe_optimizer
  return tycho.scope(function()
    local loss, out = M.policies.losses(model, probe, batch, environment, masks, config)
    optimizer:zero_grad()
    probe_optimizer:zero_grad()
    loss:backward()
    optimizer.lr = lr
    optimizer:step()
    probe_optimizer:step()
    return report and objective.report(out)
  end)
end
M.step = step

local function open_run(config, name)
  if config.resume then return run_directory.open(config.resume) end
  return run_directory.create(config.out, name, {
    config = config_file.dump(config), arguments = arg or {}, script = arg and arg[0],
    versions = { tycho = tycho.version, luajit = jit.version, blas = require('ffi').string(lib.cpu.ty_blas()), threads = tycho.threads() },
  })
end

local function mean_of(sums, counts)
  local out = {}
  for key, total in pairs(sums) do out[key] = total / counts[key] end
  return out
end

-- Trains on dataset. options: {name = for the run directory, command = how to call the script again, monitor = function(model, probe) that returns
-- numbers to log, called every log_interval epochs}. Returns the model in eval mode, the run, and false if Ctrl-C ended it early.
function M.run(config, dataset, options)
  environments.check_ratio(config.env_ratio)
  if config.block_size < 2 or config.block_size % 2 ~= 0 then
    error(('block_size must be an even number of tokens, at least 2, got %d'):format(config.block_size), 0)
  end
  local parts = build(config, dataset)
  local run = open_run(config, options.name)
  local path = run.path .. '/checkpoint.safetensors'
  local per_epoch = math.ceil(dataset:size() / config.batch_size)
  local total = config.epochs * per_epoch
  local base_lr = config.learning_rate * config.batch_size / 256
  local first = 0
  if lfs.attributes(path) then
    first = checkpoint.load(path, parts).iteration
    run:trim(function(row) return row.iteration <= first end)
  end
  local function save(iteration)
    parts.state = { iteration = iteration }
    checkpoint.save(path, parts)
  end
  -- The weights alone under the reference's file name, for its evaluations and for PyTorch.
  local function save_model(epoch)
    pt.save(('%s/simclr_%s_epoch%d.pt'):format(run.path, config.backbone, epoch), pt.dict(parts.modules.model:state_dict()))
  end

  local model = parts.modules.model
  model:train()
  local line = progress('train', total, first)
  local cache, sums, counts = {}, {}, {}
  tycho.on_interrupt('flag')
  for iteration = first, total - 1 do
    local objects = objects_of(dataset, config, iteration, per_epoch, cache)
    local lr = schedule.warmup_cosine(base_lr, iteration, config.warmup_epochs * per_epoch, total)
    local environment = M.policies.environment(config, draws(config.seed, ENVIRONMENT, iteration))
    local report = tycho.scope(function()
      local masks = M.policies.masks(config, draws(config.seed, MASK, iteration))
      local batch = dataset:batch(dataset:draw_pairs(objects, draws(config.seed, VIEWS, iteration)))
      return step(parts, batch, environment, masks, config, lr, true)
    end)
    for key, value in pairs(report) do sums[key], counts[key] = (sums[key] or 0) + value, (counts[key] or 0) + 1 end
    if report.loss ~= report.loss then
      tycho.on_interrupt(nil)
      error(('the loss is not a number at iteration %d; lower learning_rate (the last checkpoint is kept in %s)'):format(iteration, run.path), 0)
    end
    local done = iteration + 1
    line:update(done, ('loss %.3f  rot R2 %.2f  color R2 %.2f  lr %.1e'):format(report.loss, (sums.rot_r2 or 0) / (counts.rot_r2 or 1),
      (sums.color_r2 or 0) / (counts.color_r2 or 1), lr), 2 * config.batch_size)
    if done % per_epoch == 0 then
      local row = mean_of(sums, counts)
      row.iteration, row.epoch, row.lr = done, done / per_epoch, lr
      if options.monitor and row.epoch % config.log_interval == 0 then
        for key, value in pairs(options.monitor(model, parts.modules.probe)) do row[key] = value end
      end
      run:log(row)
      sums, counts = {}, {}
      if row.epoch % config.save_interval == 0 then
        save(done)
        save_model(row.epoch)
      end
    end
    if tycho.interrupted() then
      save(done)
      tycho.on_interrupt(nil)
      line:finish(('stopped after step %d of %d; go on with: %s resume=%s'):format(done, total, options.command, run.path))
      return model:eval(), run, false
    end
  end
  tycho.on_interrupt(nil)
  if first < total then
    save(total)
    line:finish(('trained %d steps in %.0f s'):format(total - first, line:elapsed()))
  end
  return model:eval(), run, true
end

return M
