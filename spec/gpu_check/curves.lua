-- Trains a small model on a device in mixed precision and on the CPU in float32, from the same weights on the same batches, for 100 steps:
-- ./tycho spec/gpu_check/curves.lua DEVICE. One row a precision: how far losses and norms of gradients are from the CPU's, as the mean over the steps
-- of their relative difference; ok where they are the same curve within the rounding of 24, 11 (float16) or 8 bits.
local tycho = require 'tycho'
local rng = require 'tycho.rng'
local models = require 'experiments.contextssl.model'
local context_mask = require 'experiments.contextssl.context_mask'
local training = require 'experiments.contextssl.training'
local on_device = require 'spec.on_device'
local new_parts = require 'spec.gpu_check.parts'
local row = require 'spec.gpu_check.row'

local where = arg[1]
local STEPS = where == 'cuda' and 100 or 3
local PAIRS, SIDE, LR, SCALE = 16, 32, 1e-4, 256
local tolerance = { off = { loss = 1e-3, norm = 2e-2 }, fp16 = { loss = 5e-3, norm = 8e-2 }, bf16 = { loss = 1e-2, norm = 0.12 } }

-- Losses and norms of the gradients of all steps.
local function curve(device, amp)
  rng.seed(1)
  local config = { backbone = 'resnet18', width = 8, projection_dim = 64, n_embd = 64, n_layer = 2, n_head = 4, block_size = 16, temperature = 0.1,
    weight_equiv_loss = 5, random_mask = true, mask_prob = 0.5, nt_xent_clamp = true, amp = amp }
  local model = models.ContextSSL(config)
  local probe = models.OnlineProbe(model.enc.features, config.projection_dim, 8)
  local parts = new_parts(device, model, probe, { optimizer = { lr = LR }, probe = { lr = 1e-3 }, amp = amp, init_scale = SCALE })
  local function moved(value) return on_device.each(value, function(t) return t:to(device) end) end
  local losses, norms = {}, {}
  local policy = training.policies.losses
  training.policies.losses = function(...)
    local loss, out = policy(...)
    losses[#losses + 1] = loss:detach():item()
    return loss, out
  end
  for i = 1, STEPS do
    local g = tycho.generator(3, i)
    local y = {}
    for k = 1, PAIRS do y[k] = g:integer(8) end
    local batch = moved({ x = g:normal_tensor { 2 * PAIRS, 3, SIDE, SIDE }, r = g:normal_tensor { PAIRS, 6 },
      latents = g:normal_tensor { PAIRS, 2, 6 }, y = tycho.tensor(y, 'i64') })
    training.step(parts, batch, i % 2 == 0 and 'rot' or 'color', moved(context_mask.training_masks(config, g)), config, LR)
    local scale = parts.optimizers.scaler and SCALE or 1
    local total = 0
    for _, p in ipairs(model:parameters()) do
      if p.grad then total = total + (p.grad:to('f32'):square():sum():item()) end
    end
    norms[i] = math.sqrt(total) / scale
  end
  training.policies.losses = policy
  return losses, norms
end

local function difference(a, b)
  local sum = 0
  for i = 1, #a do sum = sum + math.abs(a[i] - b[i]) / math.abs(b[i]) / #a end
  return sum
end

local losses, norms = curve('cpu', 'off')
for _, amp in ipairs { 'off', 'fp16', 'bf16' } do
  local l, n = curve(where, amp)
  local of_loss, of_norm, most = difference(l, losses), difference(n, norms), tolerance[amp]
  row { mode = amp == 'off' and 'float32' or amp, steps = STEPS, loss = of_loss, gradient_norm = of_norm, first_loss = l[1], last_loss = l[#l],
    loss_tolerance = most.loss, norm_tolerance = most.norm, ok = of_loss <= most.loss and of_norm <= most.norm }
end
