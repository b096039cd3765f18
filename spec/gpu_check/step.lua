-- Times the published training step on a device, with the images in its memory: ./tycho spec/gpu_check/step.lua DEVICE. One row a mode: images a
-- second, milliseconds a step (medians over rounds) and peak memory without the images. The captured step must leave the same weights, bit for bit.
local tycho = require 'tycho'
local device = require 'tycho.device'
local hash = require 'tycho.hash'
local image = require 'tycho.io.image'
local rng = require 'tycho.rng'
local models = require 'experiments.contextssl.model'
local context_mask = require 'experiments.contextssl.context_mask'
local training = require 'experiments.contextssl.training'
local new_parts = require 'spec.gpu_check.parts'
local row = require 'spec.gpu_check.row'
local timing = require 'spec.gpu_check.timing'

local where = arg[1]
local real = where == 'cuda'
local PAIRS, SIDE, IMAGES, ROUNDS, STEPS = 512, 128, 20000, 7, 10
local WARM = 6 -- steps: each environment's is captured at its second
local config = { backbone = 'resnet18', projection_dim = 512, n_embd = 2048, n_layer = 3, n_head = 4, block_size = 128, temperature = 0.1,
  weight_equiv_loss = 5, random_mask = true, mask_prob = 0.9, nt_xent_clamp = true }
if not real then
  PAIRS, SIDE, IMAGES, ROUNDS, STEPS = 4, 32, 50, 1, 1
  config.n_embd, config.n_layer, config.block_size, config.width, config.projection_dim = 32, 1, 8, 4, 32
end

local bytes = (tycho.generator(1):uniform_tensor({ IMAGES, SIDE, SIDE, 3 }) * 255):to 'u8':to(where)
local mean, std = { 0.5, 0.5, 0.5 }, { 0.2, 0.2, 0.2 }

-- A fresh training and its step number i.
local function new_step(amp, tf32, captured)
  rng.seed(1)
  config.amp = amp
  device.set_tf32(where, tf32)
  local model = models.ContextSSL(config)
  local probe = models.OnlineProbe(model.enc.features, config.projection_dim, 55)
  local parts = new_parts(where, model, probe, { optimizer = { lr = 5e-5, weight_decay = 1e-3 }, amp = amp,
    probe = { lr = 1e-3, weight_decay = 1e-6 } })
  local function compute(given)
    local x = image.normalize(bytes, mean, std, given.index)
    training.step(parts, { x = x, r = given.r, latents = given.latents, y = given.y }, given.environment, given.masks, config)
  end
  local run = captured and tycho.graph(compute) or compute
  return function(i)
    local g = tycho.generator(2, i)
    local index, y = {}, {}
    for k = 1, 2 * PAIRS do index[k] = g:integer(IMAGES) end
    for k = 1, PAIRS do y[k] = g:integer(55) end
    tycho.scope(function()
      run { index = tycho.tensor(index, 'i64', where), r = g:normal_tensor({ PAIRS, 6 }):to(where), y = tycho.tensor(y, 'i64', where),
        latents = g:normal_tensor({ PAIRS, 2, 6 }):to(where), environment = i % 2 == 0 and 'rot' or 'color',
        masks = context_mask.training_masks(config, g) }
    end)
  end, model
end

-- A word for the weights of a model.
local function word_of(model)
  local words = {}
  for _, p in ipairs(model:parameters()) do words[#words + 1] = hash(p:cpu()) end
  return hash(table.concat(words))
end

local function measure(mode, amp, tf32, captured)
  tycho.collect()
  tycho.lib.clear_cache()
  local library = tycho.lib.devices[where].float
  local held = tycho.memory(where).live
  library.ty_memory_reset_peak()
  local step, model = new_step(amp, tf32, captured)
  local count = 0
  local function next_step()
    step(count)
    count = count + 1
  end
  timing(where, 1, WARM, next_step)
  local median, slowest = timing(where, ROUNDS, STEPS, next_step)
  local found = { mode = mode, milliseconds = median * 1e3, slowest = slowest * 1e3, images_per_second = 2 * PAIRS / median,
    peak_gigabytes = (tycho.memory(where).peak - held) / 1e9 }
  return found, word_of(model)
end

for _, entry in ipairs { { 'fp16', 'fp16', false }, { 'bf16', 'bf16', false }, { 'tf32', 'off', true }, { 'float32', 'off', false } } do
  local mode, amp, tf32 = unpack(entry)
  local eager, weights = measure(mode, amp, tf32, false)
  row(eager)
  local captured, same = measure(mode .. ', captured', amp, tf32, true)
  captured.ok = weights == same
  row(captured)
end
