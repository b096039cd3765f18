-- An ablation: variants of the method side by side, each trained with several seeds, and what came of them as a table and a plot. The file that calls
-- it is the whole ablation: started by hand it sweeps over its own variants, and a job of that sweep is the same file with variant=NAME.
--
--   ablation { name = 'context_mask', variants = {
--     { name = 'off', settings = { random_mask = false } },
--     { name = 'own', policies = { masks = function(config, generator) ... end }, terms = { probes = false } } } }
--
-- A variant changes settings, policies (policies.lua) and terms of the loss (false takes one out) of experiments/ablations/ablations.yml. Arguments:
-- those of a sweep (seeds=, jobs=, sweep_dir=, --dry-run, ...), and settings for all variants. Measured on held-out images by the neighbours of
-- their embeddings (neighbours.lua), so that no variant needs a trained head.
local lfs = require 'lfs'
local tycho = require 'tycho'
local check_options = require 'tycho.options'
local config_file = require 'tycho.config'
local node = require 'tycho.config.node'
local override = require 'tycho.config.override'
local plot = require 'tycho.plot'
local sweep = require 'tycho.sweep'
local tables = require 'tycho.table'
local monitor = require 'experiments.contextssl.monitor'
local neighbours = require 'experiments.contextssl.neighbours'
local policies = require 'experiments.contextssl.policies'
local settings = require 'experiments.contextssl.settings'
local toy3d = require 'experiments.contextssl.toy3d'
local unknown = require 'experiments.contextssl.unknown'

local FILE = tycho.lib.root .. '/experiments/ablations/ablations.yml'
local MOST = 1000 -- images of each split that are looked at
local modes = { { 'none', 'no context' }, { 'rot', 'rotation context' }, { 'color', 'colour context' } }
local attributes = { { 'rotation', 'rotation' }, { 'color', 'colour' } }

-- Raises for what is misspelt in options: it would change nothing, and the table would say that it makes no difference.
local function check_names(options)
  check_options('ablation', options, { name = true, variants = true })
  for _, variant in ipairs(options.variants) do
    local owner, taken_out = ("variant '%s'"):format(tostring(variant.name)), {}
    check_options(owner, variant, { name = true, settings = true, policies = true, terms = true })
    check_options(owner .. ', policies', variant.policies, policies)
    for name, term in pairs(variant.terms or {}) do taken_out[name] = not term or nil end
    check_options(owner .. ', terms', taken_out, policies.terms)
  end
end

local function variant_named(variants, name)
  local by_name = {}
  for _, variant in ipairs(variants) do by_name[variant.name] = variant end
  return by_name[name] or unknown('variant', name, by_name)
end

-- The arguments of main.lua for a job: the settings of its variant stand before those of the command line.
local function job_arguments(variants, arguments)
  local list, rest, variant = { '-cn', FILE }, {}, nil
  for _, argument in ipairs(arguments) do
    local name = argument:match('^variant=(.*)$')
    if name then variant = variant_named(variants, override.value(name).raw) else rest[#rest + 1] = argument end
  end
  local keys = {}
  for key in pairs(variant and variant.settings or {}) do keys[#keys + 1] = key end
  table.sort(keys)
  for _, key in ipairs(keys) do list[#list + 1] = ('%s=%s'):format(key, node.inline(node.from(variant.settings[key]))) end
  for _, argument in ipairs(rest) do list[#list + 1] = argument end
  return list, variant
end

local function train(variants)
  local list, variant = job_arguments(variants, arg)
  for name, policy in pairs(variant.policies or {}) do policies[name] = policy end
  for name, term in pairs(variant.terms or {}) do policies.terms[name] = term or nil end
  function policies.monitor(train_set, val_set, config)
    local look = monitor.new(train_set, val_set, config)
    return function(model, probe)
      local out = look(model, probe)
      for name, score in pairs(out and neighbours.scores(model, train_set, val_set, config, MOST) or {}) do out[name] = score end
      return out
    end
  end
  list[0] = arg[0]
  rawset(_G, 'arg', list)
  dofile(tycho.lib.root .. '/experiments/main.lua')
end

-- The data set that all variants share; rendered where it is absent.
local function prepare(arguments)
  local config = settings.load(FILE:match('experiments/(.*)$'), arguments)
  if not lfs.attributes(config.data_dir) then
    toy3d.render { out = config.data_dir, objects = config.toy_objects, val_objects = config.toy_val_objects, views = config.toy_views,
      size = config.resolution, classes = config.classes, seed = config.toy_seed }
  end
end

local function column(mode, attribute) return ('%s: %s'):format(mode[2], attribute[2]) end

-- The table of R2 by variant, and its plot, in the sweep's folder.
local function report(options, result)
  local rows, columns, floor = {}, {}, nil
  for i, row in ipairs(result.rows) do
    rows[i] = { variant = row.variant }
    for _, mode in ipairs(modes) do
      for _, attribute in ipairs(attributes) do
        rows[i][column(mode, attribute)] = row[('knn/%s/%s'):format(mode[1], attribute[1])]
        columns[i == 1 and #columns + 1 or 0] = column(mode, attribute)
      end
    end
    floor = row['knn/floor/rotation'] or floor
  end
  columns[0] = nil
  local out = tables.grouped(rows, { 'variant' }, columns)
  out:write(result.folder .. '/ablation')
  io.write(('\n%s: R2 of what the nearest neighbours of held-out images say; rotation of a constant predictor %s\n\n'):format(options.name,
    floor and ('%.3f'):format(floor) or '-'), out:text())

  local panels, names, positions = {}, {}, {}
  for i, row in ipairs(out.rows) do names[i], positions[i] = row.variant, i end
  for _, attribute in ipairs(attributes) do
    local series = {}
    for _, mode in ipairs(modes) do
      local y, yerr = {}, {}
      for i, row in ipairs(out.rows) do
        local value = row[column(mode, attribute)] or {}
        y[i], yerr[i] = value.mean or 0 / 0, value.std or 0 / 0
      end
      series[#series + 1] = { name = mode[2], x = positions, y = y, yerr = yerr }
    end
    panels[#panels + 1] = { title = attribute[2], xlabel = options.name, ylabel = 'R2', series = series,
      x_ticks = { positions = positions, labels = names }, hlines = attribute[1] == 'rotation' and { { y = floor, name = 'constant' } } or nil }
  end
  local figure = plot.panels(panels)
  figure:svg(result.folder .. '/ablation.svg')
  figure:png(result.folder .. '/ablation.png')
  print(('\ntable: %s/ablation.txt, .csv, .md, .tex; plot: ablation.svg and .png'):format(result.folder))
end

return function(options)
  check_names(options)
  for _, argument in ipairs(arg) do
    if argument:match('^variant=') then return train(options.variants) end
  end
  local names = {}
  for i, variant in ipairs(options.variants) do names[i] = variant.name end
  local function check(arguments) config_file.require_path(settings.load('config.yml', (job_arguments(options.variants, arguments))), 'data_dir') end
  local fixed, shared = { 'seeds=3', 'sweep_dir=runs/ablations/' .. options.name }, {}
  for _, argument in ipairs(arg) do fixed[#fixed + 1] = argument end
  for _, argument in ipairs(require('tycho.sweep.plan').read(fixed).fixed) do shared[#shared + 1] = argument end
  prepare(shared)
  local result = sweep.run { script = arg[0], vary = { variant = names }, fixed = fixed, check = check }
  if result.rows then report(options, result) end
  if result.stopping then os.exit(130) end
  if result.rows and not result.is_complete then error(('not every job has finished; the same command goes on, in %s'):format(result.folder), 0) end
end
