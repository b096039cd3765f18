-- What every script does with its settings before it starts: reads them, goes back to those of the run that it resumes, refuses values that
-- cannot work, and sets the threads.
local lfs = require 'lfs'
local tycho = require 'tycho'
local device = require 'tycho.device'
local config_file = require 'tycho.config'
local check = require 'tycho.config.check'
local nearest = require 'tycho.nearest'
local run_directory = require 'tycho.train.run'
local sweep = require 'tycho.sweep'
local environments = require 'experiments.contextssl.environments'
local models = require 'experiments.contextssl.model'

local M = {}

local function even(value) return value % 2 == 0 end

local block_size = check.whole(2)
local length = check.whole(0)

local rules = {
  out = check.rule('a folder', function(v) return type(v) == 'string' and v ~= '' end),
  name = check.rule('a name for a folder, without / and <>', function(v) return type(v) == 'string' and v:match('^[^/<>%c]*$') ~= nil end),
  init_from = check.rule('a file', function(v) return type(v) == 'string' end),
  seed = check.whole(0),
  resident = check.rule('auto, true or false', function(v) return v == 'auto' or type(v) == 'boolean' end),
  device = check.rule('auto, cpu or cuda', function(v) return v == 'auto' or device.is_name(v) end),
  amp = check.word { 'off', 'fp16', 'bf16' },
  tf32 = check.flag(),
  cudnn_benchmark = check.flag(),
  capture = check.flag(),
  threads = check.whole(0, tycho.threads()),
  epochs = check.whole(1),
  log_interval = check.whole(1),
  save_interval = check.whole(1),
  checkpoint_minutes = check.number(0),
  resolution = check.whole(8, 4096),
  classes = check.whole(1),
  on_bad = check.word { 'error', 'skip' },
  workers = check.whole(0),
  image_mean = check.list(check.number(0, 1), 3),
  image_std = check.list(check.positive(), 3),
  batch_size = check.whole(1),
  backbone = check.word { 'resnet18', 'resnet34', 'resnet50' },
  width = check.whole(1),
  projection_dim = check.whole(1),
  n_embd = check.whole(1),
  n_layer = check.whole(1),
  n_head = check.whole(1),
  block_size = check.rule('an even number of tokens, at least 2', function(v) return block_size.accepts(v) and even(v) end),
  exact = check.flag(),
  break_on_nan = check.flag(),
  aug_method = check.word { 'concat' },
  is_invariant = check.flag(),
  random_mask = check.flag(),
  mask_prob = check.number(0, 1),
  env_ratio = check.rule('three probabilities, of rot, color and rotcolor, that sum to 1', environments.is_ratio, environments.sum_text),
  cache_type = check.word { 'train', 'val' },
  split = check.word { 'train', 'val' },
  env_type = check.word { 'double' },
  context_seed = check.whole(0),
  eval_normalize = check.flag(),
  init_std = check.positive(),
  aug_init_gain = check.positive(),
  temperature = check.positive(),
  nt_xent_clamp = check.flag(),
  weight_equiv_loss = check.number(0),
  learning_rate = check.number(0),
  warmup_epochs = check.number(0),
  weight_decay = check.number(0),
  equiv_eval = check.word { 'linear', 'mlp' },
  eval_ctxt = check.list(check.rule('an even number of tokens, at least 0', function(v) return length.accepts(v) and even(v) end)),
}

-- Raises what cannot work in config, a table from M.load or a plain one.
function M.check(config)
  config_file.check(config, rules)
  models.check(config)
  local seen = {}
  if config.eval_ctxt and #config.eval_ctxt == 0 then error('eval_ctxt must hold context lengths, such as [0,2,6], got []', 0) end
  for _, c in ipairs(config.eval_ctxt or {}) do
    if c > config.block_size then error(('eval_ctxt: %d tokens do not fit block_size %d'):format(c, config.block_size), 0) end
    if seen[c] then error(('eval_ctxt holds %d twice'):format(c), 0) end
    seen[c] = true
  end
end

local function copy(value)
  if type(value) ~= 'table' then return value end
  local out = {}
  for key, entry in pairs(value) do out[key] = copy(entry) end
  return out
end

local function is_same(a, b)
  if type(a) ~= 'table' or type(b) ~= 'table' then return a == b end
  for key, value in pairs(a) do
    if not is_same(value, b[key]) then return false end
  end
  return #a == #b
end

-- What a training reads anew for each step, epoch or look at the held-out images; all other keys have done their work when it begins.
local live = { 'learning_rate', 'warmup_epochs', 'random_mask', 'mask_prob', 'env_ratio', 'temperature', 'nt_xent_clamp', 'weight_equiv_loss',
  'log_interval', 'save_interval', 'eval_normalize', 'cache_type', 'context_seed', 'break_on_nan', 'capture' }
local fixed = { data_dir = true, run_dir = true, resume = true }
for key in pairs(rules) do fixed[key] = true end
for _, key in ipairs(live) do fixed[key] = nil end

-- For settings that somebody may change while a training goes by them: a function that raises the sentence about a value that no run could begin
-- with, about one that cannot change any more, or about a misspelt key, and then puts all of them back as they were when it was last called.
function M.guard(config)
  local good = copy(config)
  local function accept(changed)
    local names = {}
    for key in pairs(good) do
      names[#names + 1] = key
      if changed[key] == nil and rules[key] then error(('%s must be %s, got nil'):format(key, rules[key].expected), 0) end
    end
    for key in pairs(fixed) do
      if not is_same(good[key], changed[key]) then
        error(('%s cannot change in a run that has begun; what can: %s'):format(key, table.concat(live, ', ')), 0)
      end
    end
    for key in pairs(changed) do
      local near, is_slip = nearest(tostring(key), names)
      if good[key] == nil and is_slip and near ~= key then error(("unknown key '%s'; did you mean '%s'?"):format(tostring(key), near), 0) end
    end
    M.check(changed)
  end
  return function()
    local now = copy(config)
    local ok, why = pcall(accept, now)
    if ok then
      good = now
      return
    end
    for key in pairs(config) do config[key] = nil end
    for key, value in pairs(copy(good)) do config[key] = value end
    error('nothing was changed: ' .. why, 0)
  end
end

-- Keys that a resumed run may change: none of them bears on a number that the training computes, but the device, which is said.
local free = {}
for _, key in ipairs { 'name', 'out', 'run_dir', 'resume', 'data_dir', 'device', 'resident', 'capture', 'threads', 'epochs',
  'log_interval', 'save_interval', 'break_on_nan', 'checkpoint_minutes', 'workers', 'eval_ctxt', 'probe_epochs', 'toy_objects', 'toy_val_objects',
  'toy_views', 'toy_seed' } do
  free[key] = true
end

-- A path that means the same from every folder.
function M.absolute(path) return path:sub(1, 1) == '/' and path or lfs.currentdir() .. '/' .. path end

-- The run's directory that config.resume means, or nil.
local function resumed(config)
  local resume = config.resume
  if resume == nil or resume == 'none' or resume == '' then return nil end
  if resume ~= 'auto' then
    run_directory.check(resume, 'resume')
    return resume
  end
  if (config.run_dir or '') ~= '' then return lfs.attributes(config.run_dir .. '/config.yml') and config.run_dir or nil end
  return run_directory.newest(config.out, config.name)
end

-- Refuses what would give a resumed run other numbers than an uninterrupted one, and says what else is new.
local function compare(before, after, path)
  for _, d in ipairs(config_file.differences(before, after)) do
    if not free[d.key] and not d.no_effect then
      error(('resume=%s: %s is %s in that run; %s (%s) would give other numbers; leave it out, or start a new run'):format(path, d.key,
        d.before, d.after, config_file.where(after, d.key)), 0)
    elseif d.key == 'epochs' then
      config_file.note(after, ('epochs was %s and is %s now: from here the learning rate follows the schedule of %s epochs'):format(d.before,
        d.after, d.after))
    elseif d.key == 'data_dir' and M.absolute(after.data_dir) ~= before.data_dir then
      config_file.note(after, ('data_dir was %s and is %s now'):format(d.before, d.after))
    end
  end
end

-- Why a key has no effect where other settings are as they are, or false.
local function with_weights(config) return (config.init_from or '') ~= '' and 'because init_from sets all weights' end
local function on_cpu(config) return device.choose(config.device or 'cpu') == 'cpu' and 'on the CPU' end
local idle = { mask_prob = function(config) return not config.random_mask and 'while random_mask is off' end, init_std = with_weights,
  aug_init_gain = with_weights, tf32 = on_cpu, cudnn_benchmark = on_cpu, resident = on_cpu }

-- Says which of the settings that are others than before have no effect.
local function note_idle(before, config)
  for _, d in ipairs(config_file.differences(before, config)) do
    local why = idle[d.key] and not d.no_effect and idle[d.key](config)
    if why then config_file.note(config, ('no effect: %s, %s'):format(d.key, why)) end
  end
end

-- What must be true of a job before a sweep starts: its settings, and the data that they name.
local function check_job(file)
  return function(arguments)
    local config = M.load(file, arguments)
    if config.data_dir ~= nil then config_file.require_path(config, 'data_dir') end
  end
end

-- Opens the device and tells it how to compute.
local function check_device(config)
  local where, why = device.choose(config.device or 'cpu')
  if (config.amp or 'off') ~= 'off' then
    if where == 'cpu' then
      error(('amp=%s: mixed precision is computed on cuda only%s; leave it out, or set amp=off'):format(config.amp,
        why and ', which cannot be used: ' .. why or ', and device=cpu was asked for'), 0)
    end
    if config.amp == 'fp16' and config.break_on_nan then
      error('break_on_nan: with amp=fp16 gradients overflow now and then, and the loss scale answers; look with amp=bf16 or amp=off', 0)
    end
  end
  if where ~= 'cpu' and config.amp == 'off' and not config.tf32 then
    config_file.note(config, 'amp=off on ' .. where .. ': products and convolutions in float32 go without tensor cores; amp=fp16 trains as the '
      .. 'reference does, tf32=true rounds their factors')
  end
  device.set_tf32(where, config.tf32)
  device.set_cudnn_benchmark(where, config.cudnn_benchmark)
end

-- The settings of a script: YAML file, then the arguments. With resume=DIR or resume=auto that run's own settings stand between them, so that the
-- run goes on as it began; config.resume is then the run's directory, nil otherwise.
-- With -m among the arguments they are a sweep's: it is run, and the process ends.
function M.load(file, arguments)
  sweep.take(arguments, check_job(file))
  local path = ('%s/experiments/%s'):format(tycho.lib.root, file)
  local config = config_file.load(path, arguments)
  local asked, resume = config.resume, resumed(config)
  if resume then config = config_file.load(path, arguments, resume .. '/config.yml') end
  M.check(config)
  local before = config_file.load(path, {}, resume and resume .. '/config.yml')
  if resume then
    compare(before, config, resume)
  elseif asked == 'auto' then
    config_file.note(config, ('resume=auto: there is no run %s yet; this one is new'):format((config.run_dir or '') ~= '' and config.run_dir
      or ("'%s' below %s"):format(config.name, config.out)))
  end
  if not resume and (config.run_dir or '') ~= '' then run_directory.check_new(config.run_dir) end
  config.resume = resume
  if (config.threads or 0) > 0 then tycho.set_threads(config.threads) end
  tycho.set_exact(config.exact)
  tycho.set_break_on_nan(config.break_on_nan)
  check_device(config)
  note_idle(before, config)
  return config
end

return M
