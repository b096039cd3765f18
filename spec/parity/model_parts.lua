-- Checks of the network's smaller parts: masks, learning rates, checkpoints, and the predictor alone.
local tycho = require 'tycho'
local npy = require 'tycho.io.npy'
local pt = require 'tycho.io.pt'
local schedule = require 'tycho.train.schedule'
local models = require 'experiments.contextssl.model'
local context_mask = require 'experiments.contextssl.context_mask'
local compare = require 'spec.parity.compare'
local folder = require 'spec.parity.folder'
local network = require 'spec.parity.model_network'
local pattern = require 'spec.parity.pattern'

local M = {}

function M.masks(self, check)
  local function stacked(draws) return tycho.stack(network.random_masks(self, draws)) end
  check.abs('pair_mask', network.pair_mask(self), npy.load(self.dir .. '/pair_mask.npy'), 0)
  check.abs('masks', stacked(npy.load(self.dir .. '/mask_draws.npy')), npy.load(self.dir .. '/masks.npy'), 0)
  for name, plan in pairs(self.config._train_trajectories) do
    if plan.mask then
      local draws = npy.load(('%s/traj_%s_mask_draws.npy'):format(self.dir, name))
      local expected = npy.load(('%s/traj_%s_masks.npy'):format(self.dir, name))
      for i = 0, draws:size(0) - 1 do check.abs(('traj %s masks step %d'):format(name, i + 1), stacked(draws[i]), expected[i], 0) end
    end
  end
end

function M.schedule(self, check)
  local expected = npy.load(self.dir .. '/lr_schedule.npy')
  local c, length = self.config, self.config._note.loader_length
  local base, lr = c.learning_rate * c.batch_size / 256, {}
  for it = 0, c.epochs * length - 1 do
    lr[it + 1] = schedule.warmup_cosine(base, it, c.warmup_epochs * length, c.epochs * length)
  end
  check.l2('lr_schedule', tycho.tensor(lr, 'f64'), expected, 1e-12)
end

-- A checkpoint of the reference: names, order and values. which: 'model' or 'probe'.
function M.checkpoint(self, _, report, file, which)
  local model, probe = network.build(self)
  local module = which == 'model' and model or probe
  local wanted, dict, out_of_order = module:state_dict(), pt.load(self.dir .. '/' .. file), 0
  local values, wrong = {}, 0
  for i, key in ipairs(dict.keys) do
    values[key] = dict.values[i]
    if not wanted[i] or wanted[i][1] ~= key then out_of_order = out_of_order + 1 end
  end
  local before = {}
  for i, entry in ipairs(wanted) do before[i] = entry[2]:clone() end
  module:load_state_dict(values, file)
  for i, entry in ipairs(module:state_dict()) do
    if compare.max_abs(entry[2], before[i]) ~= 0 then wrong = wrong + 1 end
  end
  report(file .. ' tensors that differ from their pattern', wrong, 0, wrong == 0)
  report(file .. ' names out of order', out_of_order, 0, out_of_order == 0)
end

-- The transformer alone. Its sizes are those of its arrays.
function M.unit(self, check, report, name)
  local a = folder.arrays(('%s/%s.npz'):format(self.dir, name))
  local path = ('%s/%s'):format(self.dir, (name:gsub('_mask$', '')))
  if not folder.has(path .. '.pt') and not folder.has(path .. '.weights.npz') then return compare.skip(report, name, path .. '.pt is not there') end
  local weights, layers = pattern.from_checkpoint(path), 0
  while weights[('transformer.h.%d.ln_1.weight'):format(layers)] do layers = layers + 1 end
  local T = a.block0:size(1)
  local predictor = models.Predictor { features = a.x:size(1), actions = a.augs:size(1), projection_dim = a.y:size(1), n_embd = a.block0:size(2),
    n_layer = layers, n_head = a.present_k0:size(1), block_size = T, is_invariant = weights['_read_in.weight']:size(1) == a.x:size(1) }
  predictor:load_state_dict(weights, path)
  local draws = rawget(a, 'draws')
  local masks = draws and network.random_masks(self, draws) or context_mask.pair_mask(T)
  local x, augs = a.x:requires_grad_(), a.augs:requires_grad_()
  local y, kv = predictor:padded(x, augs, masks)
  local function l2(label, got, key) check.l2(name .. ' ' .. label, got, a[key], network.bound(self, 1e-5, name, key)) end
  l2('y', y, 'y')
  for layer, pair in ipairs(kv) do
    l2(('keys %d'):format(layer - 1), pair.k, 'present_k' .. layer - 1)
    l2(('values %d'):format(layer - 1), pair.v, 'present_v' .. layer - 1)
  end
  y:backward(a.gy)
  l2('gx', x.grad, 'gx')
  if rawget(a, 'gaugs') then l2('gaugs', augs.grad, 'gaugs') end
  for _, entry in ipairs(predictor:named_parameters()) do l2('gradient ' .. entry[1], entry[2].grad, 'grad/' .. entry[1]) end
end

return M
