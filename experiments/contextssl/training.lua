-- The training loop. Every part of the method is a function of policies.lua that a script may replace before it calls M.run.
-- Every random draw is a pure function of (seed, purpose, iteration), so a resumed run equals an uninterrupted one.
local lfs = require 'lfs'
local tycho = require 'tycho'
local device = require 'tycho.device'
local config_file = require 'tycho.config'
local new_loop = require 'tycho.train.loop'
local new_meters = require 'tycho.train.meters'
local pt = require 'tycho.io.pt'
local report = require 'tycho.runs.report'
local run_directory = require 'tycho.train.run'
local ask = require 'experiments.contextssl.ask'
local models = require 'experiments.contextssl.model'
local policies = require 'experiments.contextssl.policies'
local pretrained = require 'experiments.contextssl.pretrained'
local settings = require 'experiments.contextssl.settings'
local summary = require 'experiments.contextssl.summary'
local rng = require 'tycho.rng'

local M = { policies = policies }

-- Independent uses of one seed.
local ORDER, VIEWS, ENVIRONMENT, MASK, AUGMENT, PURPOSES = 1, 2, 3, 4, 5, 16
local function draws(seed, purpose, iteration) return tycho.generator(seed, purpose + PURPOSES * (iteration + 1)) end

-- ---- one step ----

local function build(config, dataset)
  rng.seed(config.seed)
  local begins_anew = (config.init_from or '') == '' or config.resume
  local model = begins_anew and ask('model', config) or pretrained.load(config_file.require_path(config, 'init_from'), config)
  local features = model.enc.features
  local probe = models.OnlineProbe(features, config.projection_dim, dataset.classes)
  local where = device.choose(config.device or 'cpu')
  model:to(where)
  probe:to(where)
  local optimizer = ask('optimizer', config, model:parameters())
  local probe_optimizer = tycho.optim.Adam(probe:parameters(), { lr = 1e-3, weight_decay = 1e-6 })
  local optimizers = { optimizer = optimizer, probe_optimizer = probe_optimizer }
  if config.amp == 'fp16' then optimizers.scaler = tycho.optim.GradScaler(where) end
  return { modules = { model = model, probe = probe }, optimizers = optimizers, meters = new_meters() }
end

-- The objects of one iteration: an epoch is a random order of all of them, its last batch may be smaller.
local function objects_of(dataset, config, iteration, per_epoch, cache)
  local epoch = math.floor(iteration / per_epoch)
  if cache.epoch ~= epoch then cache.epoch, cache.order = epoch, draws(config.seed, ORDER, epoch):permutation(dataset:size()) end
  local list, first = {}, iteration % per_epoch * config.batch_size
  for i = 1, math.min(config.batch_size, dataset:size() - first) do list[i] = cache.order[first + i] end
  return list
end

-- One step of both optimisers on a batch, added to parts.meters. Under config.amp the losses are computed in mixed precision, as PyTorch's autocast
-- and GradScaler do it; backward stays outside, as its page recommends. Nothing in it waits for a device, so that it can be captured.
-- lr: the learning rate; nil leaves the optimiser's.
function M.step(parts, batch, environment, masks, config, lr)
  local model, probe = parts.modules.model, parts.modules.probe
  local optimizer, probe_optimizer = parts.optimizers.optimizer, parts.optimizers.probe_optimizer
  optimizer.lr = lr or optimizer.lr
  tycho.scope(function()
    optimizer:zero_grad()
    probe_optimizer:zero_grad()
    local loss, out = tycho.autocast(config.amp, ask, 'losses', model, probe, batch, environment, masks, config)
    local scaler = parts.optimizers.scaler
    if scaler then
      scaler:scale(loss):backward()
      scaler:step(optimizer)
      scaler:step(probe_optimizer)
      scaler:update()
    else
      loss:backward()
      optimizer:step()
      probe_optimizer:step()
    end
    ask('measure', parts.meters, out, batch, environment, config)
  end)
end

-- ---- a run ----

-- The text of the settings that a run goes by: which run was resumed is none of them.
local function settings_text(config)
  local resume = config.resume
  config.resume = nil
  local text = config_file.dump(config)
  config.resume = resume
  return text
end

-- Takes config.resume, or makes a run. Returns it with the text of its settings.
local function open_run(config, name, dataset)
  config.data_dir = config.data_dir and settings.absolute(config.data_dir)
  local text, resume = settings_text(config), config.resume
  local made_with = { device = (device.text(config.device or 'cpu')), data = dataset:fingerprint() }
  local run
  if resume then
    run = run_directory.open(resume, made_with)
    run:take()
  else
    run = run_directory.create(config.out, name, { config = text, path = config.run_dir ~= '' and config.run_dir or nil, made_with = made_with })
  end
  return run, text
end

-- A word as the shell reads it.
local function shell_word(text) return text:find '[^%w_./=:+@%%-]' and "'" .. text:gsub("'", "'\\''") .. "'" or text end

local function resume_command(run)
  local launcher = lfs.currentdir() == tycho.lib.root and './tycho' or tycho.lib.root .. '/tycho'
  return ('%s %s %s'):format(shell_word(launcher), shell_word(arg and arg[0] or 'FILE.lua'), shell_word('resume=' .. run.path))
end

-- The loop of a run: what a step and the end of an epoch do.
local function new_training(config, dataset, parts, run, monitor)
  local per_epoch = math.ceil(dataset:size() / config.batch_size)
  local total = config.epochs * per_epoch
  local model, meters, cache = parts.modules.model, parts.meters, {}
  local optimizer, scaler = parts.optimizers.optimizer, parts.optimizers.scaler
  local loop

  local function lr(iteration) return ask('learning_rate', config, iteration, per_epoch, total) end

  local function pairs_of(iteration)
    return ask('pairs', dataset, objects_of(dataset, config, iteration, per_epoch, cache), draws(config.seed, VIEWS, iteration))
  end
  -- What it is made of may be replaced between two steps, by a policy or by who has attached.
  local function compute(given) M.step(parts, given.batch, given.environment, given.masks, config) end
  local graph = tycho.graph(compute, { depends = { policies, policies.terms, config } })

  local guard = settings.guard(config)
  local upcoming = {} -- the pairs whose images are read while a step computes, by iteration

  local function step(iteration)
    tycho.set_break_on_nan(config.break_on_nan) -- who has attached may change it
    local list = upcoming[iteration] or pairs_of(iteration)
    local environment = ask('environment', config, draws(config.seed, ENVIRONMENT, iteration))
    tycho.scope(function()
      local masks = ask('masks', config, draws(config.seed, MASK, iteration))
      local batch = ask('augment', tycho.autocast(config.amp, dataset.batch, dataset, list), config, draws(config.seed, AUGMENT, iteration))
      upcoming = {}
      if iteration + 1 < total then
        upcoming[iteration + 1] = pairs_of(iteration + 1)
        dataset:prefetch(dataset:items(upcoming[iteration + 1]))
      end
      optimizer.lr = lr(iteration)
      local run_step = config.capture == false and compute or graph
      run_step { batch = batch, environment = environment, masks = masks }
    end)
  end

  local function close_epoch(epoch)
    local row = meters:means()
    row.epoch, row.iteration, row.lr = epoch, epoch * per_epoch, lr(epoch * per_epoch - 1)
    if scaler then row.loss_scale, row.skipped_steps = scaler:get_scale(), scaler:skipped() end
    local is_interval = epoch % config.log_interval == 0
    if is_interval and monitor then
      local seen = monitor(model, parts.modules.probe)
      if not seen then return false end
      for key, value in pairs(seen) do
        if type(key) ~= 'string' or type(value) ~= 'number' then
          local kind = tycho.is_tensor(value) and 'tensor, whose number :item() reads' or type(value)
          error(("policies.monitor must return numbers by name; '%s' is a %s"):format(tostring(key), kind), 0)
        end
        row[key] = value
      end
    end
    run:log(row)
    meters:reset()
    run:say(summary.epoch(row, config.epochs))
    if is_interval then
      loop.line:say(summary.epoch(row, config.epochs))
      for _, text in ipairs(summary.contexts(row, config.block_size)) do loop:say(text) end
    end
    if epoch % config.save_interval == 0 or epoch == config.epochs then
      -- The weights alone under the reference's file name, for its evaluations and for PyTorch.
      pt.save(('%s/simclr_%s_epoch%d.pt'):format(run.path, config.backbone, epoch), pt.dict(model:state_dict()))
      loop:save()
    end
  end

  local function status() return summary.status(meters:means()) end

  loop = new_loop { run = run, parts = parts, total = total, per_epoch = per_epoch, items = 2 * math.min(config.batch_size, dataset:size()),
    minutes = config.checkpoint_minutes, identity = { objects = dataset:size(), views = dataset.views, classes = dataset.classes },
    step = step, close_epoch = close_epoch, status = status, command = resume_command(run),
    exposed = { config = config, model = model, probe = parts.modules.probe, optimizer = parts.optimizers.optimizer, policies = M.policies,
      dataset = dataset }, settings = function() return settings_text(config) end,
    changed = function()
      graph:reset()
      guard()
    end }
  return loop
end

-- Trains on dataset. options: {name = for the run directory, monitor = function(model, probe) that returns numbers to log, called every log_interval
-- epochs, or nil when it was interrupted}. Returns the model in eval mode, the run, and false if Ctrl-C or SIGTERM ended it early.
function M.run(config, dataset, options)
  settings.check(config)
  local parts = build(config, dataset)
  local run, text = open_run(config, options.name, dataset)
  local ok, finished = xpcall(function()
    local loop = new_training(config, dataset, parts, run, options.monitor)
    loop:restore()
    run:write('config.yml', text)
    run:say(('started: %s'):format(table.concat({ arg and arg[0] or 'FILE.lua', unpack(arg or {}) }, ' ')))
    run:say(device.line(config.device or 'cpu'))
    if dataset.placement then run:say(dataset.placement) end
    for _, note in ipairs(config_file.notes(config)) do run:say(note) end
    parts.modules.model:train()
    return loop:train()
  end, tycho.lib.remember)
  run:release()
  if not (ok and finished) then pcall(report.write, run.path) end -- of a finished one the script does, with all that it adds
  if not ok then error(finished, 0) end
  return parts.modules.model:eval(), run, finished
end

return M
