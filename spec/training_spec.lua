-- The experiment on a very small rendered data set: it learns, repeats, resumes and keeps its memory.
local lfs = require 'lfs'
local tycho = require 'tycho'
local data = require 'experiments.contextssl.data'
local toy3d = require 'experiments.contextssl.toy3d'
local training = require 'experiments.contextssl.training'
local monitor = require 'experiments.contextssl.monitor'
local failure = require 'spec.failure'
local files = require 'spec.files'
local new_loop = require 'tycho.train.loop'
local checkpoint = require 'tycho.train.checkpoint'
local run_directory = require 'tycho.train.run'
local says = require 'spec.says'
local on_each_device = require 'spec.on_each_device'
local quietly = require 'spec.quietly'
local small_training = require 'spec.small_training'

local folder = files.folder()

local function settings(changes)
  return small_training.settings(folder, { width = 4, projection_dim = 32, n_embd = 16, block_size = 8, batch_size = 8, epochs = 3 }, changes)
end

local function open(split, where)
  return data.open { device = where, data_dir = folder .. '/toy3d', split = split, resolution = 24, image_mean = { 0.3, 0.3, 0.3 },
    image_std = { 0.17, 0.17, 0.17 } }
end

local function run(changes)
  return quietly(training.run, settings(changes), open 'train', { name = 'spec' })
end

local function flat(t) return table.concat(t:contiguous():reshape({ -1 }):tolist(), ' ') end
local function weights(model)
  local out = {}
  for i, entry in ipairs(model:state_dict()) do out[i] = flat(entry[2]) end
  return table.concat(out, '\n')
end

describe('training', function()
  setup(function()
    quietly(toy3d.render, { out = folder .. '/toy3d', objects = 20, val_objects = 6, views = 4, size = 24, classes = 4, seed = 1 })
  end)

  it('repeats bit for bit from its seed, and differs for another', function()
    local first, second, other = run(), run(), run { seed = 4 }
    assert.equal(weights(first), weights(second))
    assert.not_equal(weights(first), weights(other))
  end)

  on_each_device('on', function(name)
    it('gives what it gives on the CPU, looking included', function()
      local function last(where)
        local config = settings { epochs = 1, log_interval = 1, device = where }
        local train, val = open('train', where), open('val', where)
        local model, result = quietly(training.run, config, train, { name = 'spec', monitor = monitor.new(train, val, config) })
        local row = require('tycho.io.json').decode(io.open(result.path .. '/metrics.jsonl'):read '*l', 'metrics')
        assert.equal(where, model:device())
        return model, row
      end
      local here, there = { last 'cpu' }, { last(name) }
      for i, entry in ipairs(here[1]:state_dict()) do
        local a, b = entry[2]:to('f64'), there[1]:state_dict()[i][2]:cpu():to('f64')
        -- The keys' biases move every score of a row alike: their gradient is rounding, of which Adam makes whole steps.
        if not entry[1]:match 'c_attn%.bias$' then assert((a - b):abs():sum():item() <= 2e-4 * a:abs():sum():item(), entry[1]) end
      end
      for key, value in pairs(here[2]) do
        if type(value) == 'number' and not key:match '^eval/' then
          assert(math.abs(value - there[2][key]) <= 1e-3 * math.max(1, math.abs(value)), ('%s: %g and %g'):format(key, value, there[2][key]))
        end
      end
    end)
  end)

  it('keeps the last weights under the reference\'s name', function()
    local model, result = run { epochs = 1, save_interval = 2 }
    local saved = require('tycho.io.pt').load(result.path .. '/simclr_resnet18_epoch1.pt')
    for _, entry in ipairs(model:state_dict()) do assert.same(entry[2]:tolist(), saved:get(entry[1]):tolist()) end
  end)

  it('averages over an epoch as the reference does, the last batch being smaller', function()
    local seen = {}
    local losses = training.policies.losses
    training.policies.losses = function(model, probe, batch, environment, ...)
      local loss, out = losses(model, probe, batch, environment, ...)
      table.insert(seen, { environment = environment, loss = out.nt_xent:item(), ce = out.ce_pred:item(), rows = out.labels:numel(),
        labels = out.labels:tolist(), logits = out.logits_feat:tolist(), output = out.equiv_logits:tolist(), states = batch.latents:tolist() })
      return loss, out
    end
    local ok, _, result = pcall(run, { epochs = 1, env_ratio = { 0.4, 0.4, 0.2 }, seed = 8 })
    training.policies.losses = losses
    assert(ok, _)
    local row = result.rows[1]
    assert.same({ 16, 16, 8 }, { seen[1].rows, seen[2].rows, seen[3].rows })
    -- Means over steps, weighted by rows or by whole sequences of 8, in plain loops.
    local sums, counts = {}, {}
    local function add(name, value, weight) sums[name], counts[name] = (sums[name] or 0) + value * weight, (counts[name] or 0) + weight end
    local function r2(output, states, rows, first, last, own)
      local mean, n, residual, total = 0, 0, 0, 0
      local function target(i, column) return states[math.floor(i / 2) + 1][own and i % 2 + 1 or 2][column] end
      for _, i in ipairs(rows) do
        for c = first, last do mean, n = mean + target(i, c), n + 1 end
      end
      mean = mean / n
      for _, i in ipairs(rows) do
        for c = first, last do
          residual, total = residual + (target(i, c) - output[i + 1][c]) ^ 2, total + (target(i, c) - mean) ^ 2
        end
      end
      return 1 - residual / total, residual / n
    end
    for _, step in ipairs(seen) do
      local rows, hits = {}, 0
      for i = 0, step.rows - 1 do
        rows[i + 1] = i
        local logits, best = step.logits[i + 1], 1
        for k = 2, #logits do best = logits[k] > logits[best] and k or best end
        hits = hits + (best - 1 == step.labels[i + 1] and 1 or 0)
      end
      add('loss', step.loss, step.rows)
      add('ce_pred', step.ce, step.rows)
      add('acc_feat', hits / step.rows, step.rows)
      for name, columns in pairs { rot = { 1, 4 }, color = { 5, 6 } } do
        local speaks = step.environment == name or step.environment == 'rotcolor'
        if speaks then
          local score, mse = r2(step.output, step.states, rows, columns[1], columns[2])
          add(name .. '_r2', score, step.rows)
          add(name .. '_mse', mse, step.rows)
        end
        for _, position in ipairs { 0, 1, 6, 7 } do
          local chosen = {}
          for s = 0, step.rows / 8 - 1 do chosen[s + 1] = 8 * s + position end
          add(('%s_%s/c%d'):format(name, speaks and 'equivariance' or 'invariance', position),
            (r2(step.output, step.states, chosen, columns[1], columns[2], not speaks)), step.rows / 8)
        end
      end
    end
    for name, sum in pairs(sums) do
      assert(row[name], name)
      assert(math.abs(row[name] - sum / counts[name]) < 2e-5 * math.max(1, math.abs(row[name])), ('%s: %.9g, %.9g'):format(name, row[name],
        sum / counts[name]))
    end
    for name in pairs(row) do
      assert(sums[name] or not name:match('rot') and not name:match('color'), name)
    end
  end)

  it('writes the same rows as lines and as a table', function()
    local train, val = open 'train', open 'val'
    local config = settings { epochs = 3, log_interval = 2 }
    local _, result = quietly(training.run, config, train, { name = 'spec', monitor = monitor.new(train, val, config) })
    local lines = {}
    for line in io.lines(result.path .. '/metrics.csv') do lines[#lines + 1] = line end
    local columns = {}
    for name in lines[1]:gmatch('[^,]+') do columns[#columns + 1] = name end
    assert.same({ 'epoch', 'iteration' }, { columns[1], columns[2] })
    local at = 1
    for line in io.lines(result.path .. '/metrics.jsonl') do
      local row, column = require('dkjson').decode(line), 0
      at = at + 1
      for cell in (lines[at] .. ','):gmatch('([^,]*),') do
        column = column + 1
        assert.equal(row[columns[column]] and ('%.14g'):format(row[columns[column]]) or '', cell)
        row[columns[column]] = nil
      end
      assert.equal(#columns, column)
      assert.is_nil(next(row))
    end
    assert.equal(4, at)
    assert.equal(4, #lines)
  end)

  it('adds a row to the table, which is written anew for a new column alone', function()
    local result = run_directory.create(folder, 'spec', { config = 'a: 1\n' })
    local path, inodes = result.path .. '/metrics.csv', {}
    for i, row in ipairs { { loss = 3 }, { loss = 0 / 0 }, {}, { loss = 1, extra = 2 }, { extra = 3 } } do
      row.epoch, row.iteration = i, 10 * i
      result:log(row)
      inodes[i] = lfs.attributes(path, 'ino')
    end
    assert.equal('epoch,iteration,extra,loss\n1,10,,3\n2,20,,nan\n3,30,,\n4,40,2,1\n5,50,3,\n', files.read(path))
    assert.same({ true, true, false, true }, { inodes[2] == inodes[1], inodes[3] == inodes[1], inodes[4] == inodes[1],
      inodes[5] == inodes[4] })
    result:trim(function(row) return row.iteration <= 40 end)
    result:log { epoch = 6, iteration = 60, loss = 4 }
    assert.equal('epoch,iteration,extra,loss\n1,10,,3\n2,20,,nan\n3,30,,\n4,40,2,1\n6,60,,4\n', files.read(path))
  end)

  it('trains every backbone, and tokens without actions; parameters without gradients stay', function()
    for _, changes in ipairs { { backbone = 'resnet34' }, { backbone = 'resnet50', width = 2, projection_dim = 64 }, { is_invariant = true },
      { equiv_eval = 'mlp' } } do
      changes.epochs, changes.block_size = 1, 4
      local config = settings(changes)
      require('tycho.rng').seed(config.seed)
      local before = require('experiments.contextssl.model').ContextSSL(config)
      local model, result = run(changes)
      local row = result.rows[1]
      assert(row.loss == row.loss and row.loss < math.huge)
      assert.equal(changes.is_invariant, row['rot_equivariance/c0'] == nil and row['color_equivariance/c0'] == nil or nil)
      for i, entry in ipairs(model:state_dict()) do
        local name, is_unused = entry[1], entry[1]:match('^equiv_linear') or entry[1]:match('^rel_aug')
        local same = flat(entry[2]) == flat(before:state_dict()[i][2])
        if is_unused then assert(same, name .. ' moved') end
        if name:match('^enc.*conv.*weight') or name:match('^predictor.*weight') then assert(not same, name .. ' stayed') end
      end
      local probe = require('experiments.contextssl.model').OnlineProbe(model.enc.features, config.projection_dim, 4)
      assert.is_number(monitor.new(open 'train', open 'val', config)(model, probe)['eval/knn_pred'])
    end
  end)

  it('allocates nothing more as steps go on', function()
    local dataset = open 'train'
    local live = {}
    local losses = training.policies.losses
    training.policies.losses = function(...)
      tycho.collect()
      live[#live + 1] = tycho.memory().registered
      return losses(...)
    end
    local ok, message = pcall(quietly, training.run, settings { epochs = 40, save_interval = 100 }, dataset, { name = 'spec' })
    training.policies.losses = losses
    assert(ok, message)
    assert.equal(120, #live)
    -- The same place in an epoch, so the same batch size; by then every image has been decoded once.
    assert.equal(live[61], live[118])
  end)

  it('logs what the monitor sees', function()
    local train, val = open 'train', open 'val'
    local config = settings { epochs = 2, log_interval = 2 }
    local _, result = quietly(training.run, config, train, { name = 'spec', monitor = monitor.new(train, val, config) })
    local rows = {}
    for line in io.lines(result.path .. '/metrics.jsonl') do rows[#rows + 1] = require('dkjson').decode(line) end
    assert.equal(2, #rows)
    assert.is_nil(rows[1]['eval/knn_feat'])
    for _, key in ipairs { 'loss', 'acc_feat', 'pos_sim', 'eval/rot/c0/zr/rotation', 'eval/color/c6/z+/color', 'eval/rot/c6/zr/acc_pred',
      'eval/floor/rotation', 'eval/acc_feat', 'eval/knn_feat', 'eval/knn_pred' } do
      assert.is_number(rows[2][key], key)
    end
    assert(rows[2]['eval/knn_feat'] >= 0 and rows[2]['eval/knn_feat'] <= 1)
  end)

  it('draws environments with their probabilities, from the seed alone', function()
    local environments = require 'experiments.contextssl.environments'
    local function draw(ratio, seed)
      local counts, order = { rot = 0, color = 0, rotcolor = 0 }, {}
      local g = tycho.generator(seed)
      for i = 1, 4000 do
        order[i] = environments.sample(ratio, g)
        counts[order[i]] = counts[order[i]] + 1
      end
      return counts, table.concat(order)
    end
    for _, ratio in ipairs { { 0.5, 0.5, 0 }, { 0.2, 0.3, 0.5 }, { 1, 0, 0 }, { 0, 0, 1 } } do
      local counts = draw(ratio, 1)
      for i, name in ipairs(environments.names) do
        -- Five standard deviations of a binomial count.
        assert(math.abs(counts[name] - 4000 * ratio[i]) <= 5 * math.sqrt(4000 * ratio[i] * (1 - ratio[i])), name)
      end
    end
    assert.equal(select(2, draw({ 0.5, 0.5, 0 }, 1)), select(2, draw({ 0.5, 0.5, 0 }, 1)))
    assert.not_equal(select(2, draw({ 0.5, 0.5, 0 }, 1)), select(2, draw({ 0.5, 0.5, 0 }, 2)))
  end)

  it('says what is wrong with settings made by hand', function()
    local cases = {
      { { env_ratio = { 0.5, 0.6, 0 } }, 'that sum to 1, got [0.5, 0.6, 0], which sums to 1.1' },
      { { block_size = 7 }, 'block_size must be an even number' },
      { { projection_dim = 128 }, "projection_dim=128 does not fit: there is no projector, so it must equal the encoder's width, 32" },
      { { n_head = 3 }, 'n_embd 16 must be a multiple of n_head 3' },
      { { backbone = 'resnet19' }, 'backbone must be resnet18, resnet34 or resnet50' },
    }
    for _, case in ipairs(cases) do
      local message = failure(run, case[1])
      assert(message:find(case[2], 1, true), message)
    end
  end)
end)

describe('a loop of one\'s own', function()
  local function new_parts(f64)
    local model = tycho.nn.Linear(2, 2)
    if f64 then model.wide = tycho.zeros({ 3 }, 'f64'):requires_grad_() else model.weight:requires_grad_(false) model.bias:requires_grad_(false) end
    return { modules = { model = model }, optimizers = {}, meters = require 'tycho.train.meters'() }
  end
  local function train(own, f64, total, on_step)
    local epochs = {}
    local loop = new_loop { run = own, parts = new_parts(f64), total = total, per_epoch = 2, items = 1, identity = {}, command = 'it again',
      step = on_step or function() end, close_epoch = function(epoch) epochs[#epochs + 1] = epoch end, status = function() return '' end }
    loop:restore()
    quietly(loop.train, loop)
    loop:save()
    return epochs
  end

  it('closes its epochs though no step is measured, and goes on behind them', function()
    for _, f64 in ipairs { true, false } do
      local own = run_directory.create(folder .. '/own', 'loop', { config = '' })
      assert.same({ 1, 2 }, train(own, f64, 4))
      assert.same({ 3 }, train(own, f64, 6))
    end
  end)

  it('refuses a state that says no step', function()
    local own = run_directory.create(folder .. '/own', 'loop', { config = '' })
    local parts = new_parts(true)
    for _, iteration in ipairs { 'two', 1.5, -1 } do
      parts.state = { iteration = iteration, data = {} }
      checkpoint.save(own.path .. '/checkpoint.safetensors', parts)
      says(failure(train, own, true, 4), 'does not say which step it is of: expected a whole number, got ' .. iteration)
    end
  end)
end)

describe('meters', function()
  it('weigh means, know nothing of what was added without weight, and are saved', function()
    local meters, again = require 'tycho.train.meters'(), require 'tycho.train.meters'()
    assert.is_true(meters:is_empty())
    meters:add({ nothing = tycho.tensor(5) }, 0)
    assert.is_true(meters:is_empty())
    meters:add({ a = tycho.tensor(1), b = tycho.tensor(-2) }, 3)
    meters:add({ a = tycho.tensor(5) }, 1)
    assert.is_false(meters:is_empty())
    assert.same({ a = 2, b = -2 }, meters:means())
    again:load_state_dict(meters:state_dict())
    again:add({ a = tycho.tensor(7) }, 4)
    assert.same({ a = 4.5, b = -2 }, again:means())
    assert.equal('meters: a must have shape (2), sum and weight, got (3)', failure(again.load_state_dict, again, { a = tycho.zeros { 3 } }))
    assert.same({ a = 4.5, b = -2 }, again:means())
    again:reset()
    assert.is_true(again:is_empty())
  end)
end)
