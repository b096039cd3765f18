-- The network of a golden folder: its settings, its batch, its parameters from their patterns, and comparing tensors with the folder's digests.
local tycho = require 'tycho'
local npy = require 'tycho.io.npy'
local models = require 'experiments.contextssl.model'
local context_mask = require 'experiments.contextssl.context_mask'
local compare = require 'spec.parity.compare'
local folder = require 'spec.parity.folder'
local pattern = require 'spec.parity.pattern'

local M = {}

local function interleave(x, xv)
  return tycho.stack({ x, xv }, 1):reshape { 2 * x:size(0), x:size(1), x:size(2), x:size(3) }
end

-- What all checks of the folder share.
function M.open(dir)
  local self = { dir = dir, config = folder.json(dir .. '/config.json'), table = folder.json(dir .. '/param_table.json'),
    base = npy.load(dir .. '/pattern_base.npy'), indices = folder.arrays(dir .. '/digest_indices.npz'), noise = folder.noise(dir) }
  self.classes = self.table['online/online_linear_probe_feat.weight'].shape[1]
  local config = self.config
  config.width, config.nt_xent_clamp, config.init_std, config.aug_init_gain = self.table['enc.conv1.weight'].shape[1], true, 0.02, 1
  self.mask_prob = rawget(config._note, 'mask_prob_used') or config.mask_prob
  local a = folder.arrays(dir .. '/batch.npz')
  self.batch = { x = interleave(a.x, a.xv), r = a.r, latents = a.i_latent, y = a.y }
  return self
end

-- A fresh model and online probe with the folder's parameters, in train mode.
function M.build(self)
  local model = models.ContextSSL(self.config)
  local probe = models.OnlineProbe(model.enc.features, self.config.projection_dim, self.classes)
  local values, probe_values = {}, {}
  for name, rule in pairs(self.table) do
    local online = name:match('^online/(.*)$')
    if online then probe_values[online] = pattern(self.base, rule) else values[name] = pattern(self.base, rule) end
  end
  for _, entry in ipairs(model:state_dict()) do
    if entry[1]:match('num_batches_tracked$') and not values[entry[1]] then values[entry[1]] = tycho.zeros({}, 'i64') end
  end
  return model:load_state_dict(values, 'param_table.json'), probe:load_state_dict(probe_values, 'param_table.json')
end

-- List of {name as in the digests, parameter}.
function M.named(model, probe)
  local list = {}
  for _, entry in ipairs(model:named_parameters()) do list[#list + 1] = { 'model/' .. entry[1], entry[2] } end
  for _, entry in ipairs(probe:named_parameters()) do list[#list + 1] = { 'online/' .. entry[1], entry[2] } end
  return list
end

function M.pair_mask(self) return context_mask.pair_mask(self.config.block_size) end

-- One mask a layer from draws (layers, T, T/2).
function M.random_masks(self, draws)
  local masks = {}
  for layer = 0, draws:size(0) - 1 do
    masks[layer + 1] = context_mask.random_mask(draws:size(1), self.mask_prob, draws[layer]:contiguous())
  end
  return masks
end

-- ---- tolerances and digests ----

-- The tolerance of an array: ten times the noise that the folder states for it, and no less than `least`.
function M.bound(self, least, archive, key, kind) return math.max(least, 10 * self.noise(archive, key, kind)) end

local UNKNOWN = 0.1 -- relative noise beyond which an array says nothing

-- Compares a tensor with its digest: all of it under NAME/full, or NAME/norm, NAME/sum and the values at chosen places under NAME/val.
-- bounds: {values, norm, sum or nil}, relative. Returns false where the archive has no digest of this name.
function M.check_digest(self, report, label, name, got, archive, digest, bounds, suffix)
  suffix = suffix or ''
  local check = compare.reporter(report)
  local flat = got:contiguous():reshape { -1 }
  -- The noise of norm and sum, one number each, may be small by chance. That of the values bounds the norm's, and is the sum's by order of magnitude.
  local spread = self.noise(archive, name .. '/val' .. suffix)
  local function judge(part, fn, least)
    local key = name .. '/' .. part .. suffix
    local noise = math.max(self.noise(archive, key), part == 'norm' and spread / 10 or part == 'sum' and spread or 0)
    if noise > UNKNOWN then
      return compare.skip(report, label .. ' ' .. part, ("the reference's own noise is %.2g"):format(noise))
    end
    fn(label .. (part == 'full' and '' or ' ' .. part), rawget(digest, key), math.max(least, 10 * noise))
  end
  if rawget(digest, name .. '/full' .. suffix) then
    judge('full', function(text, expected, bound) check.l2(text, flat, expected:reshape { -1 }, bound) end, bounds.values)
    return true
  end
  local norm = rawget(digest, name .. '/norm' .. suffix)
  if not norm then return false end
  norm = norm:item()
  local wide = flat:to('f64')
  local scale = norm == 0 and 1 or norm
  judge('norm', function(text, _, bound) check.abs(text, wide:square():sum():sqrt():item() / scale, norm / scale, bound) end, bounds.norm)
  if bounds.sum then
    judge('sum', function(text, sum, bound) check.abs(text, (wide:sum():item() - sum:item()) / scale, 0, bound) end, bounds.sum)
  end
  judge('val', function(text, expected, bound) check.l2(text, flat:index_select(self.indices[name]), expected, bound) end, bounds.values)
  return true
end

return M
