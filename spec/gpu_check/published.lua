-- The published training step on a device, with the images in its memory. published(where, small, images) returns a table: pairs (of a step), and
-- new_step(amp, tf32, captured), which makes a fresh training and returns its step number i as a function, and its parts. small: a step of the same
-- form that takes seconds where kernels run on a CPU. images [opt]: how many there are.
local tycho = require 'tycho'
local device = require 'tycho.device'
local image = require 'tycho.io.image'
local rng = require 'tycho.rng'
local models = require 'experiments.contextssl.model'
local context_mask = require 'experiments.contextssl.context_mask'
local training = require 'experiments.contextssl.training'
local new_parts = require 'spec.gpu_check.parts'

return function(where, small, images)
  local PAIRS, SIDE, IMAGES = 512, 128, images or 20000
  local config = { backbone = 'resnet18', projection_dim = 512, n_embd = 2048, n_layer = 3, n_head = 4, block_size = 128, temperature = 0.1,
    weight_equiv_loss = 5, random_mask = true, mask_prob = 0.9, nt_xent_clamp = true }
  if small then
    PAIRS, SIDE, IMAGES = 4, 32, images or 50
    config.n_embd, config.n_layer, config.block_size, config.width, config.projection_dim = 32, 1, 8, 4, 32
  end
  local bytes = (tycho.generator(1):uniform_tensor({ IMAGES, SIDE, SIDE, 3 }) * 255):to 'u8':to(where)
  local mean, std = { 0.5, 0.5, 0.5 }, { 0.2, 0.2, 0.2 }

  local function new_step(amp, tf32, captured)
    rng.seed(1)
    config.amp = amp
    device.set_tf32(where, tf32)
    local model = models.ContextSSL(config)
    local probe = models.OnlineProbe(model.enc.features, config.projection_dim, 55)
    local parts = new_parts(where, model, probe, { optimizer = { lr = 5e-5, weight_decay = 1e-3 }, amp = amp,
      probe = { lr = 1e-3, weight_decay = 1e-6 } })
    local function compute(given)
      local x = tycho.autocast(amp, image.normalize, bytes, mean, std, given.index)
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
    end, parts
  end
  return { pairs = PAIRS, new_step = new_step }
end
