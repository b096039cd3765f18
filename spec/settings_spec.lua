-- The settings of the experiments: the published commands as printed, the reference's file unchanged, a sentence for every value that cannot work.
local config_file = require 'tycho.config'
local settings = require 'experiments.contextssl.settings'
local files = require 'spec.files'
local quietly = require 'spec.quietly'
local shell = require 'spec.shell'

local function load(...)
  local arguments = { ... }
  return settings.load('config.yml', arguments)
end

describe('the published training command', function()
  -- As printed, with 'python main.py' become './tycho experiments/main.lua', and --cfg job to see what it means.
  local published = [[
CUDA_VISIBLE_DEVICES=3 ./tycho experiments/main.lua \
    backbone=resnet18 \
    epochs=1000 \
    n_layer=3 \
    block_size=128 \
    log_interval=5 \
    projection_dim=512 \
    learning_rate=5e-5 \
    temperature=0.1 \
    weight_equiv_loss=5.0 \
    env_ratio=[0.5,0.5,0.0] \
    eval_normalize=True \
    random_mask=True \
    mask_prob=0.9 \
    weight_decay=1e-3]]
  it('sets what it says', function()
    local out = shell(published .. ' --cfg job')
    for _, line in ipairs { 'backbone: resnet18', 'epochs: 1000', 'n_layer: 3', 'block_size: 128', 'log_interval: 5', 'projection_dim: 512',
      'learning_rate: 5e-05', 'temperature: 0.1', 'weight_equiv_loss: 5', 'env_ratio: [0.5, 0.5, 0]', 'eval_normalize: true', 'random_mask: true',
      'mask_prob: 0.9', 'weight_decay: 0.001', 'seed: 42', 'n_embd: 2048', 'n_head: 4', 'batch_size: 512', 'warmup_epochs: 10' } do
      assert(('\n' .. out):find('\n' .. line .. '\n', 1, true), line .. ' in\n' .. out)
    end
    assert.falsy(out:find('tycho:', 1, true), out)
  end)
  it('asks for the data', function()
    local out = shell(published)
    assert.truthy(out:match('^tycho: data_dir is not set %(<PATH_TO_DATA> from experiments/config.yml:%d+%): write data_dir=PATH'), out)
  end)
  it('survives a blank behind a backslash, and says what the shell did', function()
    local out = shell './tycho experiments/main.lua epochs=7 \\ \nmask_prob=0.3'
    assert.truthy(out:find('the shell ends the command, and the lines below it do not arrive here', 1, true), out)
  end)
end)

describe('a setting', function()
  it('that does nothing where others are as they are is said', function()
    local function notes(...)
      local config = quietly(load, ...)
      return table.concat(config_file.notes(config), '\n')
    end
    assert.equal('no effect: mask_prob, while random_mask is off', notes('mask_prob=0.9'))
    assert.equal('no effect: init_std, because init_from sets all weights\nno effect: aug_init_gain, because init_from sets all weights',
      notes('init_from=x.pt', 'init_std=0.1', 'aug_init_gain=2'))
    assert.equal('no effect: tf32, on the CPU\nno effect: cudnn_benchmark, on the CPU\nno effect: resident, on the CPU',
      notes('device=cpu', 'tf32=True', 'cudnn_benchmark=True', 'resident=False'))
    assert.equal('', notes('device=cpu', 'mask_prob=0.9', 'random_mask=True', 'init_std=0.1', 'tf32=False', 'resident=auto'))
  end)
end)

describe('a configuration file of the reference', function()
  local path = files.folder() .. '/config.yml'
  it('works over ours unchanged', function()
    files.write(path, [[
hydra:
  job_logging:
    root:
      handlers: [file, console]
  run:
    dir: "../../logs"
debug_mode: False    # a comment
wandb:
  entity: <YOUR_WANDB_ENTITY>
  project: mine
dataset: 3drotcolor
data_dir: <PATH_TO_DATA>
name: run
projection_dim: 512
epochs: 10
momentum: 0.9
moving_average_decay: 0.95 # no effect in the reference either
weight_equiv_loss: 1
load_online_linear_probe: online_linear_probe_resnet18_epoch1000.pt
env_ratio: [0.5, 0.5, 0.0]
mask_prob: 0.15
]])
    local out = shell(('./tycho experiments/main.lua --config-name %s mask_prob=0.9 --cfg job'):format(path))
    assert.truthy(out:find('mask_prob: 0.9\n', 1, true) and out:find('epochs: 10\n', 1, true) and out:find('batch_size: 512\n', 1, true), out)
    out = shell(('./tycho experiments/main.lua -cn %s mask_prob=0.9 method=x'):format(path))
    assert.truthy(out:find('tycho: no effect: hydra, wandb.project, moving_average_decay, method (--help says why)\n', 1, true), out)
  end)
end)

describe('a value that cannot work', function()
  local cases = {
    { 'epochs=0', 'epochs must be a whole number >= 1, got 0 (the command line)' },
    { 'epochs=1.5', 'epochs must be a whole number >= 1, got 1.5' },
    { 'epochs=null', 'epochs must be a whole number >= 1, got null' },
    { '~epochs', 'epochs must be a whole number >= 1, got null' },
    { 'seed=-1', 'seed must be a whole number >= 0, got -1' },
    { 'seed=0.5', 'seed must be a whole number >= 0, got 0.5' },
    { 'seed=1e30', 'seed must be a whole number >= 0, got 1e+30' },
    { 'batch_size=0', 'batch_size must be a whole number >= 1, got 0' },
    { 'batch_size=2.5', 'batch_size must be a whole number >= 1, got 2.5' },
    { 'block_size=7', 'block_size must be an even number of tokens, at least 2, got 7' },
    { 'block_size=0', 'block_size must be an even number of tokens, at least 2, got 0' },
    { 'n_embd=10', 'n_embd 10 must be a multiple of n_head 4' },
    { 'n_head=0', 'n_head must be a whole number >= 1, got 0' },
    { 'temperature=0', 'temperature must be a number > 0, got 0' },
    { 'temperature=nan', 'temperature must be a number > 0, got .nan' },
    { 'learning_rate=-1', 'learning_rate must be a number >= 0, got -1' },
    { 'learning_rate=inf', 'learning_rate must be a number >= 0, got .inf' },
    { 'mask_prob=1.01', 'mask_prob must be a number from 0 to 1, got 1.01' },
    { 'mask_prob=-0.1', 'mask_prob must be a number from 0 to 1, got -0.1' },
    { 'env_ratio=[0.5,0.6,0]', 'env_ratio must be three probabilities, of rot, color and rotcolor, that sum to 1, got [0.5, 0.6, 0] '
      .. '(the command line), which sums to 1.1' },
    { 'env_ratio=[0.5,0.49999,0]', 'which sums to 0.99999' },
    { 'env_ratio=[0.5,0.5]', 'got [0.5, 0.5]' },
    { 'env_ratio=[1.5,-0.5,0]', 'got [1.5, -0.5, 0]' },
    { 'env_ratio=[]', 'got []' },
    { 'backbone=resnet19', "backbone must be resnet18, resnet34 or resnet50, got resnet19 (the command line); did you mean 'resnet18'?" },
    { 'backbone=resnet50', "projection_dim=512 does not fit: there is no projector, so it must equal the encoder's width, 2048" },
    { 'resolution=4', 'resolution must be a whole number from 8 to 4096, got 4' },
    { 'resolution=1e6', 'resolution must be a whole number from 8 to 4096, got 1e+06' },
    { 'image_std=[1,1,0]', 'image_std must be a list of 3, each a number > 0, got [1, 1, 0]' },
    { 'image_mean=[1,1]', 'image_mean must be a list of 3' },
    { 'aug_method=add', 'aug_method must be concat, got add' },
    { 'cache_type=trian', "did you mean 'train'?" },
    { 'equiv_eval=linaer', "did you mean 'linear'?" },
    { 'log_interval=0', 'log_interval must be a whole number >= 1' },
    { 'save_interval=-5', 'save_interval must be a whole number >= 1' },
    { 'checkpoint_minutes=-1', 'checkpoint_minutes must be a number >= 0' },
    { 'device=gpu', 'device must be auto, cpu or cuda, got gpu' },
    { 'device=true', 'device must be auto, cpu or cuda, got true' },
    { 'resident=maybe', 'resident must be auto, true or false, got maybe' },
    { 'threads=0.5', 'threads must be a whole number from 0 to ' },
    { 'threads=100000', 'threads must be a whole number from 0 to ' },
    { 'name=a/b', 'name must be a name for a folder' },
    { 'name=<RUN_NAME>', 'name must be a name for a folder, without / and <>, got <RUN_NAME>' },
  }
  it('costs one sentence that names it', function()
    for _, case in ipairs(cases) do
      local ok, message = pcall(load, case[1])
      assert.is_false(ok, case[1])
      assert(message:find(case[2], 1, true), case[1] .. ': ' .. message)
      assert(not message:find('\n') and not message:match('^[^\n:]+:%d+: '), message)
    end
  end)
  it('is told from one that can', function()
    for _, good in ipairs { 'env_ratio=[0.3333333,0.3333333,0.3333334]', 'env_ratio=[0,0,1]', 'mask_prob=0', 'mask_prob=1', 'warmup_epochs=0.5',
      'seed=0', 'learning_rate=0', 'batch_size=1', 'block_size=2', 'resolution=8', 'nt_xent_clamp=False' } do
      assert.has_no.errors(function() load(good) end)
    end
    local config = load('backbone=resnet50', 'projection_dim=2048', 'weight_equiv_loss=5')
    for text, value in pairs { True = true, ['false'] = false, auto = 'auto' } do assert.equal(value, load('resident=' .. text).resident) end
    assert.same({ 'resnet50', 2048, 5, 'ContextSSL' }, { config.backbone, config.projection_dim, config.weight_equiv_loss, config.method })
  end)
end)
