-- Checks the pair probes: five optimiser steps from given embeddings, then the held-out pairs. Heads of different modes and context lengths
-- share nothing, so each is trained by itself. Sizes and settings come from pair.json.
local json = require 'tycho.io.json'
local npy = require 'tycho.io.npy'
local npz = require 'tycho.io.npz'
local metrics = require 'experiments.contextssl.metrics'
local probes = require 'experiments.contextssl.probes'
local compare = require 'spec.parity.compare'
local pattern = require 'spec.parity.pattern'

local OUTPUT, PARAMETERS = 1e-4, 5e-4 -- relative L2

local function load_head(module, base, init, prefix)
  local values = {}
  for name, rule in pairs(init) do
    local rest = name:sub(1, #prefix) == prefix and name:sub(#prefix + 1)
    if rest then values[rest] = pattern(base, rule) end
  end
  module:load_state_dict(values, prefix)
end

local function check_head(module, self, prefix, name, check)
  local digest = self.after
  for _, entry in ipairs(module:named_parameters()) do
    local key, flat = prefix .. entry[1], entry[2]:contiguous():reshape { -1 }
    if digest[key .. '/full'] then
      check.l2(name .. ' ' .. entry[1], flat, digest[key .. '/full']:reshape { -1 }, PARAMETERS)
    else
      local wide = flat:to('f64')
      check.l2(name .. ' ' .. entry[1] .. ' norm', wide:square():sum():sqrt(), digest[key .. '/norm'], PARAMETERS)
      -- The indices are filed by name alone, so a name that the linear probes use for another shape has theirs.
      local other = self.others[key]
      if not other or table.concat(other.shape, ',') == table.concat(entry[2].shape, ',') then
        check.l2(name .. ' ' .. entry[1], flat:index_select(self.indices[key]), digest[key .. '/val'], PARAMETERS)
      end
    end
  end
end

-- One pair of heads. x: (pairs, 2 width); what: 'feat' or 'zplus'; c: context length or nil.
local function check_case(self, mode, what, c, x, check)
  local settings = self.settings
  local part = what == 'feat' and 'feature_clf.' or ('predictor_zplus_clf.%d.'):format(c)
  local rotation_prefix, color_prefix = ('rot/networks.%s.%s'):format(mode, part), ('color/networks.%s.%s'):format(mode, part)
  local probe = probes.pair(x:size(1) / 2, settings.optimizer.lr)
  load_head(probe.rotation, self.base, settings.init, rotation_prefix)
  load_head(probe.color, self.base, settings.init, color_prefix)
  local label = ('pair %s %s%s'):format(mode, what, c and ' c' .. c or '')
  local order, mode_index = {}, nil
  for i, text in ipairs(settings.loss_parts_order) do order[text] = i - 1 end
  for i, name in ipairs(settings.modes) do if name == mode then mode_index = i - 1 end end
  local size, suffix = settings.batch_pairs, what == 'feat' and 'feat' or 'zplus c' .. c
  for step = 0, settings.train_steps - 1 do
    local bx, br = x:narrow(0, step * size, size), self.r:narrow(0, step * size, size)
    local parts = self.expected.loss_parts[step][mode_index]
    check.l2(('%s step %d rotation loss'):format(label, step + 1), probe.rotation(bx):mse(br:narrow(1, 0, 4)):detach(),
      parts[order['mse rot ' .. suffix]], OUTPUT)
    check.l2(('%s step %d color loss'):format(label, step + 1), probe.color(bx):mse(br:narrow(1, 4, 2)):detach(),
      parts[order['mse color ' .. suffix]], OUTPUT)
    probe:step(bx, br)
  end
  check_head(probe.rotation, self, rotation_prefix, label .. ' rotation', check)
  check_head(probe.color, self, color_prefix, label .. ' color', check)
  local first = settings.train_steps * size
  local tx, tr = x:narrow(0, first, settings.test_batches * size), self.r:narrow(0, first, settings.test_batches * size)
  local key = ('%s/%s%s'):format(what, mode, c and '/c' .. c or '')
  for attribute, head in pairs { rot = probe.rotation, color = probe.color } do
    local output = head(tx):detach()
    local from, width = attribute == 'rot' and 0 or 4, attribute == 'rot' and 4 or 2
    check.l2(('%s test %s'):format(label, attribute), output, self.expected[('test_out/%s_%s'):format(attribute, key)], OUTPUT)
    check.l2(('%s R2 %s'):format(label, attribute), metrics.r2(output, tr:narrow(1, from, width)),
      self.expected[('r2/%s_%s'):format(attribute, key)], OUTPUT)
  end
end

local function paired(rows) return rows:reshape { rows:size(0) / 2, 2 * rows:size(1) } end

return function(dir, report)
  local check = compare.reporter(report)
  compare.guard(report, 'pair', function()
    local inputs = npz.load(dir .. '/pair_inputs.npz')
    local self = { settings = json.load(dir .. '/pair.json'), base = npy.load(dir .. '/pattern_base.npy'), r = inputs.r,
      expected = npz.load(dir .. '/pair_expected.npz'), after = npz.load(dir .. '/pair_params_after5.npz'),
      indices = npz.load(dir .. '/digest_indices.npz'), others = json.load(dir .. '/linear.json').init }
    for _, mode in ipairs(self.settings.modes) do
      check_case(self, mode, 'feat', nil, paired(inputs.feature), check)
      for _, c in ipairs(self.settings.contexts) do
        check_case(self, mode, 'zplus', c, paired(inputs[('zplus/%s/c%d'):format(mode, c)]:normalize()), check)
      end
    end
  end)
end
