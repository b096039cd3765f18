-- Every part of the method can be replaced, from a script of one's own, and what replaces it is what runs.
local lfs = require 'lfs'
local tycho = require 'tycho'
local policies = require 'experiments.contextssl.policies'
local pretrained = require 'experiments.contextssl.pretrained'
local failure = require 'spec.failure'
local says = require 'spec.says'
local toy3d = require 'experiments.contextssl.toy3d'
local training = require 'experiments.contextssl.training'
local files = require 'spec.files'
local quietly = require 'spec.quietly'
local small_training = require 'spec.small_training'

local folder = files.folder()

local function settings(changes)
  return small_training.settings(folder, { n_layer = 2, learning_rate = 0.064, weight_decay = 0, random_mask = false, save_interval = 100,
    data_dir = folder .. '/toy3d', resolution = 16, image_mean = { 0.3, 0.3, 0.3 }, image_std = { 0.2, 0.2, 0.2 }, workers = 0, classes = 2 },
    changes)
end

-- Trains with some policies replaced; those of replaced.terms are terms, false takes one out.
local function run(replaced, changes)
  local before, terms = {}, {}
  for name, fn in pairs(policies) do before[name] = fn end
  for name, fn in pairs(policies.terms) do terms[name] = fn end
  for name, fn in pairs(replaced) do
    if name ~= 'terms' then policies[name] = fn end
  end
  for name, fn in pairs(replaced.terms or {}) do policies.terms[name] = fn or nil end
  local config = settings(changes)
  local results = { pcall(quietly, function() return training.run(config, policies.data(config, 'train'), { name = 'spec' }) end) }
  for name, fn in pairs(before) do policies[name] = fn end
  for name in pairs(policies.terms) do policies.terms[name] = nil end
  for name, fn in pairs(terms) do policies.terms[name] = fn end
  if not results[1] then error(results[2], 0) end
  return results[2], results[3]
end

local function weights(model, pattern)
  local out = {}
  for _, entry in ipairs(model:state_dict()) do
    if entry[1]:match(pattern or '') then out[#out + 1] = table.concat(entry[2]:contiguous():reshape({ -1 }):tolist(), ' ') end
  end
  return table.concat(out, '\n')
end

local function initial(config)
  require('tycho.rng').seed(config.seed)
  return policies.model(config)
end

describe('policies', function()
  setup(function()
    quietly(toy3d.render, { out = folder .. '/toy3d', objects = 8, val_objects = 4, views = 3, size = 16, classes = 2, seed = 1 })
  end)

  it('that return something else are told by name', function()
    local function no() end
    for name, cases in pairs {
      masks = { { no, 'a uint8 mask (T,T), or a list of one for each layer; it returned nil' },
        { function() return { tycho.ones({ 4, 4 }, 'u8') } end, 'it returned table' } },
      environment = { { function() return 'colour' end, "rot, color, rotcolor; it returned 'colour'" } },
      augment = { { no, 'the batch: x, r, latents and y; it returned nil' } },
      losses = { { no, 'a scalar, and a table that policies.measure reads; it returned nil' },
        { function() return tycho.ones {} end, 'it returned a tensor f32' } },
      optimizer = { { no, 'an optimiser' }, { function() return {} end, 'it returned table' } },
      model = { { no, 'a model' } }, learning_rate = { { no, 'a number; it returned nil' } },
      pairs = { { no, 'a list of {object, view 1, view 2}' }, { function() return { { 0, 1 } } end, 'it returned table' } },
    } do
      for _, case in ipairs(cases) do
        says(failure(run, { [name] = case[1] }), ('policies.%s must return '):format(name), case[2])
      end
      says(failure(run, { [name] = 3 }), ('policies.%s must be a function, got number'):format(name))
    end
    says(failure(run, { terms = { mine = 3 } }), 'policies.terms.mine must be a function of the step that returns a scalar or nil, got number')
    local out = { measure = function(meters) meters:add({ mine = 3.5 }, 1) end }
    says(failure(run, out), 'meters: mine must be a tensor of one number, got number')
  end)

  it('may have other terms altogether', function()
    local terms = policies.terms
    policies.terms = { size = function(step) return step.prediction:square():mean() end }
    local ok, model = pcall(run, {})
    policies.terms = terms
    assert(ok, model)
    local expected = run { terms = { size = function(step) return step.prediction:square():mean() end, contrastive = false, equivariance = false,
      probes = false } }
    assert.equal(weights(expected, '^enc'), weights(model, '^enc'))
  end)

  it('are all asked, with what they need', function()
    local seen = {}
    local function spy(name, check)
      local original = policies[name]
      return function(...)
        seen[name] = (seen[name] or 0) + 1
        check(...)
        return original(...)
      end
    end
    local function generator(g) assert(g:uniform() < 1) end
    run {
      data = spy('data', function(config, split) assert.same({ 16, 'train' }, { config.resolution, split }) end),
      model = spy('model', function(config) assert.equal(2, config.n_layer) end),
      optimizer = spy('optimizer', function(_, parameters) assert(tycho.is_tensor(parameters[1])) end),
      learning_rate = spy('learning_rate', function(_, _, per_epoch, total) assert.same({ 2, 4 }, { per_epoch, total }) end),
      pairs = spy('pairs', function(_, objects, g) assert.equal(4, #objects) generator(g) end),
      augment = spy('augment', function(batch, _, g) assert.same({ 8, 3, 16, 16 }, batch.x.shape) generator(g) end),
      environment = spy('environment', function(_, g) generator(g) end),
      masks = spy('masks', function(_, g) generator(g) end),
      losses = spy('losses', function(_, _, batch, environment, masks)
        assert.same({ 4, 6 }, batch.r.shape)
        assert(environment == 'rot' or environment == 'color')
        assert.equal(2, #masks)
      end),
      measure = spy('measure', function(_, out) assert(out.loss:item() > 0) end),
    }
    seen.terms, seen.monitor, seen.pictures = 1, 1, 1 -- a table; asked by main.lua
    for name in pairs(policies) do assert(seen[name], name .. ' was not asked') end
    assert.same({ 4, 4, 4 }, { seen.augment, seen.losses, seen.masks })
  end)

  it('decide what is trained: data, optimiser, learning rate, model', function()
    local config = settings()
    local before = weights(initial(config), 'weight$')
    assert.not_equal(before, weights(run {}, 'weight$'))
    assert.equal(before, weights(run { learning_rate = function() return 0 end }, 'weight$'))
    local _, result = run { optimizer = function(_, parameters) return tycho.optim.SGD(parameters, {}) end }
    assert.equal(2, #result.rows)

    local black
    run { augment = function(batch)
      batch.x:zero_()
      return batch
    end, losses = function(model, probe, batch, ...)
      black = batch.x:abs():sum():item()
      return require('experiments.contextssl.objective').losses(model, probe, batch, ...)
    end }
    assert.equal(0, black)

    local model = run { model = function(c)
      local whole = require('experiments.contextssl.model').ContextSSL(c)
      whole.aug_predictor = tycho.nn.Linear(16, 6)
      return whole
    end }
    assert.same({ 6, 16 }, model.aug_predictor.weight.shape)
  end)

  it('say what a saved model is loaded into', function()
    local Own = tycho.nn.Module.class()
    function Own:init(config)
      local parts = require('experiments.contextssl.model').ContextSSL(config)
      self.enc, self.predictor, self.own = parts.enc, parts.predictor, tycho.nn.Linear(2, 2)
    end
    local original, path, config = policies.model, folder .. '/own.pt', settings()
    function policies.model(c) return Own(c) end
    local saved = Own(config)
    require('tycho.io.pt').save(path, saved:state_dict())
    local loaded = pretrained.load(path, config)
    policies.model = original
    assert.same(saved.own.weight:tolist(), loaded.own.weight:tolist())
    config.projection_dim = 32
    says(failure(pretrained.load, path, config), 'own.pt holds a model of projection_dim=16, the settings say projection_dim=32; write ')
  end)

  it('choose among the views that are there', function()
    for _, pair in ipairs { { 0, 1, 3 }, { 8, 0, 1 }, { 0, -1, 1 }, { 0, 0.5, 1 }, { 0, 1, 'a' } } do
      says(failure(run, { pairs = function() return { pair } end }), 'the train images have no view ',
        'views count from 0 to 2, objects from 0 to 7')
    end
  end)

  it('add a term to the loss, and take one out', function()
    local plain = run {}
    local model, result = run { terms = { equivariance = false } }
    assert.equal(weights(initial(settings()), '^aug_predictor'), weights(model, '^aug_predictor'))
    assert.not_equal(weights(plain, '^aug_predictor'), weights(model, '^aug_predictor'))
    assert.is_nil(result.rows[1].rot_r2)
    assert.is_number(result.rows[1].loss)

    local added
    local other = run { terms = { size = function(step)
      added = (step.prediction * step.prediction):mean()
      return added
    end }, measure = function(_, out)
      local sum = out.nt_xent:item() + out.ce_feat:item() + out.ce_pred:item() + added:item()
        + 5 * ((out.rotation_loss and out.rotation_loss:item() or 0) + (out.color_loss and out.color_loss:item() or 0))
      assert(math.abs(out.loss:item() - sum) < 1e-4 * sum)
    end }
    assert.not_equal(weights(plain), weights(other))
    assert.error_matches(function() run { terms = { equivariance = false, contrastive = false, probes = false } } end, 'the loss has no terms')
  end)

  it('cannot be misspelt', function()
    assert.error_matches(function() policies.enviroment = function() end end, "no policy 'enviroment'; did you mean 'environment'?", 1, true)
    assert.error_matches(function() policies.terms.equivarance = nil end, "no term 'equivarance'; did you mean 'equivariance'?", 1, true)
    assert.error_matches(function() policies.colours = 1 end, 'there are augment, data, environment', 1, true)
  end)

  it('are replaced in one file that runs main.lua, and the run keeps that file', function()
    local script = folder .. '/only_colour.lua'
    local file = assert(io.open(script, 'w'))
    file:write([[
      local policies = require 'experiments.contextssl.policies'
      function policies.environment() return 'color' end
      dofile 'experiments/main.lua'
    ]])
    file:close()
    local command = ('cd %s && ./tycho %s data_dir=%s/toy3d out=%s/one run_dir=%s/one width=2 projection_dim=16 n_embd=8 n_head=2 n_layer=1 '
      .. 'block_size=4 batch_size=4 epochs=1 resolution=16 classes=2 workers=0 >%s/log 2>&1'):format(tycho.lib.root, script, folder, folder,
      folder, folder)
    local status = os.execute(command)
    local log = assert(io.open(folder .. '/log')):read('*a')
    assert.equal(0, status, log)
    local row = require('dkjson').decode((assert(io.open(folder .. '/one/metrics.jsonl')):read('*l')))
    assert.is_number(row.color_mse)
    assert.is_nil(row.rot_mse)
    assert(lfs.attributes(folder .. '/one/scripts/only_colour.lua'))

    -- The run ends with its report: the nearest neighbours of held-out images behind each context. The first image is the first held-out one.
    local page = assert(io.open(folder .. '/one/report.html')):read('*a')
    assert.equal(3, select(2, page:gsub('<img [^>]*src="data:image/jpeg;base64,', '')))
    local image = require 'tycho.io.image'
    local grid = image.load(folder .. '/one/neighbours_rot.jpg')
    assert.same({ 6 * 18 - 2, 7 * 18 + 2, 3 }, grid.shape)
    local config = settings()
    local val = policies.data(config, 'val')
    local truth = image.load(val.root .. val.objects[1] .. '/image_0.jpg')
    local difference = 0
    for y = 0, 15 do
      for x = 0, 15 do difference = difference + math.abs(tonumber(grid[y][x][1]:item()) - tonumber(truth[y][x][1]:item())) / 256 end
    end
    assert(difference < 8, difference)
  end)
end)
