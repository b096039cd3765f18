-- Three training steps of the reference's code (spec/golden/model) on a device, in float32 and in mixed precision:
-- ./tycho spec/gpu_check/golden.lua DEVICE. One row a trajectory, precision and step: relative L2 of the predictions and of the loss. What the
-- first update, of Adam, makes of another order of summation is larger than on the CPU (spec/parity/model_training.lua).
local tycho = require 'tycho'
local npy = require 'tycho.io.npy'
local compare = require 'spec.parity.compare'
local folder = require 'spec.parity.folder'
local network = require 'spec.parity.model_network'
local training = require 'experiments.contextssl.training'
local on_device = require 'spec.on_device'
local new_parts = require 'spec.gpu_check.parts'
local row = require 'spec.gpu_check.row'

local where = arg[1]
local dir = tycho.lib.root .. '/spec/golden/model'
local STEPS = 3
local extra = { off = 0, fp16 = 2e-2, bf16 = 1e-1 } -- tolerance for 11 and 8 bits after a dozen layers

local function moved(value) return on_device.each(value, function(t) return t:to(where) end) end

local function check(self, name, plan, amp)
  local config = setmetatable({ learning_rate = plan.learning_rate, amp = amp }, { __index = self.config })
  local model, probe = network.build(self)
  local online = config._note.online_optimizer
  local parts = new_parts(where, model, probe, { optimizer = { weight_decay = config.weight_decay }, amp = amp,
    probe = { lr = online.lr, weight_decay = online.weight_decay }, init_scale = 256 }) -- a scale at which no step is skipped
  local steps = folder.arrays(('%s/traj_%s_steps.npz'):format(dir, name))
  local draws = plan.mask and npy.load(('%s/traj_%s_mask_draws.npy'):format(dir, name))
  local batch, losses, travelled = moved(self.batch), training.policies.losses, 0
  for i = 1, math.min(STEPS, #plan.envs) do
    local masks = moved(draws and network.random_masks(self, draws[i - 1]) or network.pair_mask(self))
    local of_prediction, of_loss
    local function difference(t, key) return (compare.rel_l2(t:detach():to('f32'):cpu(), steps[('step%d/%s'):format(i, key)])) end
    training.policies.losses = function(...)
      local loss, out = losses(...)
      of_prediction, of_loss = difference(out.prediction, 'prediction'), difference(loss, 'loss_all')
      return loss, out
    end
    training.step(parts, batch, plan.envs[i], masks, config, plan.lr[i])
    training.policies.losses = losses
    local tolerance = (travelled < 1e-6 and 5e-5 or i == 2 and 5e-3 or 2e-2) + extra[amp]
    row { name = name, mode = amp == 'off' and 'float32' or amp, step = i, prediction = of_prediction, loss = of_loss, tolerance = tolerance,
      ok = of_prediction <= tolerance and of_loss <= tolerance }
    travelled = travelled + plan.lr[i]
  end
end

local self = network.open(dir)
local names = {}
for name in pairs(self.config._train_trajectories) do names[#names + 1] = name end
table.sort(names)
for _, name in ipairs(names) do check(self, name, self.config._train_trajectories[name], 'off') end
local last = names[#names]
for _, amp in ipairs { 'fp16', 'bf16' } do check(self, last, self.config._train_trajectories[last], amp) end
