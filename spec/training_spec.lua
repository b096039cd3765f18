-- The experiment on a very small rendered data set: it learns, repeats, resumes and keeps its memory.
-- luacheck: globals io.stderr
local tycho = require 'tycho'
local lfs = require 'lfs'
local data = require 'experiments.contextssl.data'
local toy3d = require 'experiments.contextssl.toy3d'
local training = require 'experiments.contextssl.training'
local evaluation = require 'experiments.contextssl.evaluation'
local monitor = require 'experiments.contextssl.monitor'

local folder = os.tmpname()
os.remove(folder)
lfs.mkdir(folder)

local function settings(changes)
  local config = {
    backbone = 'resnet18', width = 4, projection_dim = 32, n_embd = 16, n_layer = 1, n_head = 2, block_size = 8, init_std = 0.1,
    aug_init_gain = 1, is_invariant = false, batch_size = 8, epochs = 3, warmup_epochs = 1, learning_rate = 0.032, weight_decay = 1e-3,
    temperature = 0.1, weight_equiv_loss = 5, env_ratio = { 0.5, 0.5, 0 }, random_mask = true, mask_prob = 0.5, nt_xent_clamp = true,
    log_interval = 100, save_interval = 1, seed = 3, context_seed = 0, out = folder .. '/runs',
  }
  for key, value in pairs(changes or {}) do config[key] = value end
  return config
end

local function open(split)
  return data.open { data_dir = folder .. '/toy3d', split = split, resolution = 24, image_mean = { 0.3, 0.3, 0.3 },
    image_std = { 0.17, 0.17, 0.17 } }
end

local function quietly(fn, ...)
  local stderr = io.stderr
  io.stderr = assert(io.open('/dev/null', 'w'))
  local results = { pcall(fn, ...) }
  io.stderr:close()
  io.stderr = stderr
  if not results[1] then error(results[2], 0) end
  return unpack(results, 2, table.maxn(results))
end

local function run(changes)
  return quietly(training.run, settings(changes), open 'train', { name = 'spec', command = 'spec' })
end

local function weights(model)
  local out = {}
  for i, entry in ipairs(model:state_dict()) do out[i] = table.concat(entry[2]:contiguous():reshape({ -1 }):tolist(), ' ') end
  return table.concat(out, '\n')
end

describe('training', function()
  setup(function()
    quietly(toy3d.render, { out = folder .. '/toy3d', objects = 20, val_objects = 6, views = 4, size = 24, classes = 4, seed = 1 })
  end)
  teardown(function() os.execute('rm -rf ' .. folder) end)

  it('repeats bit for bit from its seed, and differs for another', function()
    local first, second, other = run(), run(), run { seed = 4 }
    assert.equal(weights(first), weights(second))
    assert.not_equal(weights(first), weights(other))
  end)

  it('resumed equals uninterrupted, bit for bit', function()
    local whole = weights((run()))
    -- Stops after five of nine steps as Ctrl-C does, then goes on.
    local interrupted, steps = tycho.interrupted, 0
    tycho.interrupted = function()
      steps = steps + 1
      return steps == 5
    end
    local _, stopped, finished = run()
    tycho.interrupted = interrupted
    assert.is_false(finished)
    local resumed = run { resume = stopped.path }
    assert.equal(whole, weights(resumed))
    local rows = 0
    for _ in io.lines(stopped.path .. '/metrics.jsonl') do rows = rows + 1 end
    assert.equal(3, rows)
    -- The last epoch's weights, under the reference's name.
    local saved = require('tycho.io.pt').load(stopped.path .. '/simclr_resnet18_epoch3.pt')
    for _, entry in ipairs(resumed:state_dict()) do assert.same(entry[2]:tolist(), saved:get(entry[1]):tolist()) end
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
    local ok, message = pcall(quietly, training.run, settings { epochs = 40, save_interval = 100 }, dataset, { name = 'spec', command = 'spec' })
    training.policies.losses = losses
    assert(ok, message)
    assert.equal(120, #live)
    -- The same place in an epoch, so the same batch size; by then every image has been decoded once.
    assert.equal(live[61], live[118])
  end)

  it('logs what the monitor sees', function()
    local train, val = open 'train', open 'val'
    local config = settings { epochs = 2, log_interval = 2 }
    local _, result = quietly(training.run, config, train, { name = 'spec', command = 'spec', monitor = monitor.new(train, val, config) })
    local rows = {}
    for line in io.lines(result.path .. '/metrics.jsonl') do rows[#rows + 1] = require('dkjson').decode(line) end
    assert.equal(2, #rows)
    assert.is_nil(rows[1]['eval/knn_feat'])
    for _, key in ipairs { 'loss', 'acc_feat', 'pos_sim', 'eval/rot/c0/zr/rotation', 'eval/color/c6/z+/color', 'eval/rot/c6/acc_pred',
      'eval/acc_feat', 'eval/knn_feat', 'eval/knn_pred' } do
      assert.is_number(rows[2][key], key)
    end
    assert(rows[2]['eval/knn_feat'] >= 0 and rows[2]['eval/knn_feat'] <= 1)
  end)

  it('evaluates every context length in range', function()
    local model = run { epochs = 1 }
    local result = quietly(evaluation.by_context, model, open 'train', open 'val', { lengths = { 0, 2, 6 }, block_size = 8, context_seed = 0,
      probe = { epochs = 2, learning_rate = 1e-3, batch_size = 256, seed = 0 } })
    for _, mode in ipairs { 'rot', 'color' } do
      for _, c in ipairs { 0, 2, 6 } do
        for _, scores in ipairs { result.r2, result.r2_probe } do
          local score = scores[mode][c]
          assert(score.rotation < 1 and score.color < 1, ('%s %d: %g %g'):format(mode, c, score.rotation, score.color))
        end
      end
    end
    assert.same(result.r2.rot[0], result.r2.color[0])
    assert(result.floor.color < 0.1 and result.floor.rotation > 0.2, 'floors')
  end)

  it('says what is wrong with env_ratio, block_size and projection_dim', function()
    local cases = {
      { { env_ratio = { 0.5, 0.6, 0 } }, 'env_ratio must be three numbers >= 0 that sum to 1' },
      { { block_size = 7 }, 'block_size must be an even number' },
      { { projection_dim = 128 }, "projection_dim=128 does not fit: there is no projector, so it must equal the encoder's width, 32" },
      { { n_head = 3 }, 'n_embd 16 must be a multiple of n_head 3' },
      { { backbone = 'resnet19' }, 'backbone must be resnet18, resnet34 or resnet50' },
    }
    for _, case in ipairs(cases) do
      local ok, message = pcall(run, case[1])
      assert.is_false(ok)
      assert(message:find(case[2], 1, true), message)
    end
  end)
end)

describe('data', function()
  local root = folder .. '_bad'
  local function fresh()
    os.execute(('rm -rf %s; cp -r %s/toy3d %s'):format(root, folder, root))
    return root
  end
  setup(function()
    lfs.mkdir(folder)
    quietly(toy3d.render, { out = folder .. '/toy3d', objects = 3, val_objects = 1, views = 3, size = 24, classes = 2, seed = 1 })
  end)
  teardown(function() os.execute(('rm -rf %s %s'):format(folder, root)) end)

  local function first_object(dir)
    local dataset = data.open { data_dir = dir, split = 'train', resolution = 24, image_mean = { 0, 0, 0 }, image_std = { 1, 1, 1 } }
    return dataset.root .. dataset.objects[1], dataset
  end
  local function refuses(text, break_it)
    local dir = fresh()
    local object = first_object(dir)
    break_it(object, dir)
    local ok, message = pcall(function()
      local _, dataset = first_object(dir)
      return dataset:batch { { 0, 0, 1 } }
    end)
    assert.is_false(ok)
    assert(message:find(text, 1, true), message)
    assert(not message:find('\n'), message)
  end

  it('names a missing view', function() refuses('latent_1.npy is missing', function(o) os.remove(o .. '/latent_1.npy') end) end)
  it('names an empty image', function()
    refuses('image_1.jpg is empty', function(o) io.open(o .. '/image_1.jpg', 'w'):close() end)
  end)
  it('names a truncated image', function()
    refuses('image_1.jpg', function(o)
      local file = io.open(o .. '/image_1.jpg', 'rb')
      local text = file:read('*a')
      file:close()
      file = io.open(o .. '/image_1.jpg', 'wb')
      file:write(text:sub(1, math.floor(#text / 2)))
      file:close()
    end)
  end)
  it('names a truncated npy', function()
    refuses('latent_0.npy', function(o)
      local file = io.open(o .. '/latent_0.npy', 'wb')
      file:write('\147NUMPY\1\0')
      file:close()
    end)
  end)
  it('says where an index is expected', function()
    local ok, message = pcall(data.open, { data_dir = '/nonexistent', split = 'train', resolution = 24 })
    assert.is_false(ok)
    assert(message:find('data_dir=/nonexistent: expected meta/train_images.npy in it', 1, true), message)
  end)
end)
