-- Checks the probes: optimiser steps from given embeddings and given initial parameters, then the held-out ones. The heads of a mode are trained
-- stacked, as the evaluations do. Sizes, modes, context lengths and settings come from pair.json and linear.json.
local lfs = require 'lfs'
local tycho = require 'tycho'
local json = require 'tycho.io.json'
local npy = require 'tycho.io.npy'
local npz = require 'tycho.io.npz'
local metrics = require 'experiments.contextssl.metrics'
local probes = require 'experiments.contextssl.probes'
local single_probes = require 'experiments.contextssl.single_probes'
local compare = require 'spec.parity.compare'
local pattern = require 'spec.parity.pattern'

local OUTPUT, PARAMETERS, ROUNDED = 1e-4, 5e-4, 6e-5 -- relative L2; absolute, of numbers with four digits

local groups = { rotation = 'rot', color = 'color', class = 'label' } -- the reference's names
local columns = { rotation = { 0, 4 }, color = { 4, 2 } }

-- The reference's part of a mode's network, and what its losses are called, for an input {kind, c}.
local function part_of(input) return input[1] == 'feat' and 'feature_clf' or ('predictor_%s_clf.%d'):format(unpack(input)) end
local function title_of(input) return input[1] == 'feat' and 'feat' or ('%s c%d'):format(unpack(input)) end
local function key_of(mode, input) return input[1] == 'feat' and ('feat/%s'):format(mode) or ('%s/%s/c%d'):format(input[1], mode, input[2]) end

-- Calls fn(name, tensor (in, out) or (1, out)) for the parameters of head i, by the reference's name.
local function each_parameter(probe, i, mode, input, fn)
  for attribute, group in pairs(groups) do
    local heads = probe.heads[attribute]
    for layer = 1, heads and heads.depth or 0 do
      local prefix = ('%s/networks.%s.%s%s'):format(group, mode, part_of(input), heads.depth > 1 and '.' .. 2 * (layer - 1) or '')
      fn(prefix .. '.weight', heads['weight' .. layer]:select(0, i))
      fn(prefix .. '.bias', heads['bias' .. layer]:select(0, i))
    end
  end
end

-- A probe for the inputs of one mode, with the reference's initial parameters.
local function new_probe(self, mode, inputs, width)
  local classes = self.settings.init[('label/networks.%s.%s.bias'):format(mode, part_of(inputs[1]))]
  local probe = probes.new(#inputs, width, self.settings.optimizer.lr, 'cpu', classes and classes.shape[1])
  tycho.no_grad(function()
    for i, input in ipairs(inputs) do
      each_parameter(probe, i - 1, mode, input, function(name, p)
        local rule = self.settings.init[name]
        if not rule then error(('no initial values for %s'):format(name), 0) end
        local values = pattern(self.base, rule)
        p:copy_(values.ndim == 2 and values:transpose(0, 1) or values)
      end)
    end
  end)
  return probe
end

local function check_parameters(self, probe, mode, inputs, label, check)
  for i, input in ipairs(inputs) do
    each_parameter(probe, i - 1, mode, input, function(name, p)
      local rule, after = self.settings.init[name], self.after
      local flat = (#rule.shape == 2 and p:transpose(0, 1) or p):contiguous():reshape { -1 }
      local title = ('%s %s'):format(label, name)
      if after[name .. '/full'] then
        check.l2(title, flat, after[name .. '/full']:reshape { -1 }, PARAMETERS)
      else
        check.l2(title .. ' norm', flat:to('f64'):square():sum():sqrt(), after[name .. '/norm'], PARAMETERS)
        -- Both probes file their indices by name alone, so a name that the other one has in another shape may have the other one's.
        local other = self.other[name]
        if not other or table.concat(other.shape, ',') == table.concat(rule.shape, ',') then
          check.l2(title, flat:index_select(self.indices[name]), after[name .. '/val'], PARAMETERS)
        end
      end
    end)
  end
end

local loss_names = { rotation = 'mse rot ', color = 'mse color ', class = 'ce ' }

local function check_losses(self, losses, mode_index, inputs, step, label, check)
  local parts = self.expected.loss_parts[step - 1][mode_index - 1]
  for attribute, values in pairs(losses) do
    for i, input in ipairs(inputs) do
      local name = loss_names[attribute] .. title_of(input)
      check.l2(('%s step %d %s'):format(label, step, name), values[i - 1]:detach(), parts[self.order[name]], OUTPUT)
    end
  end
end

-- output: of head i; target (n,6); labels or nil.
local function check_scores(self, outputs, i, mode, input, target, labels, label, check)
  local key = key_of(mode, input)
  for attribute, range in pairs(columns) do
    local output = outputs[attribute][i]
    local name = ('%s_%s'):format(groups[attribute], key)
    if self.expected['test_out/' .. name] then
      check.l2(('%s test %s'):format(label, name), output, self.expected['test_out/' .. name], OUTPUT)
      check.l2(('%s R2 %s'):format(label, name), metrics.r2(output, target:narrow(1, unpack(range))), self.expected['r2/' .. name], OUTPUT)
    end
  end
  local logits = self.expected['class_logits_' .. key]
  if logits then
    check.l2(('%s class logits %s'):format(label, key), outputs.class[i], logits, OUTPUT)
    local what = ({ feat = 'feat', zplus = 'z+', zr = 'zr' })[input[1]]
    local logged = self.log and self.log[mode]['Test acc ' .. what]
    if logged then
      check.abs(('%s accuracy %s'):format(label, key), metrics.accuracy(outputs.class[i], labels),
        input[2] and logged[tostring(input[2])] or logged, ROUNDED)
    end
  end
end

-- Parameters after the last step: NAME_params_afterN.npz.
local function load_after(dir, name)
  for file in lfs.dir(dir) do
    if file:match('^' .. name .. '_params_after%d+%.npz$') then return npz.load(dir .. '/' .. file) end
  end
  error(('no %s_params_after*.npz'):format(name), 0)
end

local function open(dir, name, other)
  local self = { settings = json.load(('%s/%s.json'):format(dir, name)), other = json.load(('%s/%s.json'):format(dir, other)).init,
    base = npy.load(dir .. '/pattern_base.npy'), inputs = npz.load(('%s/%s_inputs.npz'):format(dir, name)),
    expected = npz.load(('%s/%s_expected.npz'):format(dir, name)), indices = npz.load(dir .. '/digest_indices.npz'),
    after = load_after(dir, name), order = {} }
  for i, text in ipairs(self.settings.loss_parts_order) do self.order[text] = i - 1 end
  self.log = select(2, next(self.settings.logs or {}))
  return self
end

-- Trains a probe on batch(step) for all steps, checking losses and the parameters after them.
local function train(self, mode_index, inputs, width, batch, label, check)
  local mode = self.settings.modes[mode_index]
  local probe = new_probe(self, mode, inputs, width)
  for step = 1, self.settings.train_steps do
    check_losses(self, tycho.no_grad(probe.losses, probe, batch(step)), mode_index, inputs, step, label, check)
    probe:step(batch(step))
  end
  check_parameters(self, probe, mode, inputs, label, check)
  return probe
end

-- ---- pairs ----

local function check_pair(dir, check)
  local self = open(dir, 'pair', 'linear')
  local settings, r = self.settings, self.inputs.r
  local size = settings.batch_pairs
  local first = settings.train_steps * size
  local function paired(rows) return rows:reshape { 1, rows:size(0) / 2, 2 * rows:size(1) } end
  for mode_index, mode in ipairs(settings.modes) do
    local zplus, values = {}, {}
    for i, c in ipairs(settings.contexts) do
      zplus[i], values[i] = { 'zplus', c }, paired(self.inputs[('zplus/%s/c%d'):format(mode, c)]:normalize())
    end
    for _, case in ipairs { { { { 'feat' } }, paired(self.inputs.feature) }, { zplus, tycho.cat(values) } } do
      local inputs, x = unpack(case)
      local function batch(start, count) return { unit = x:narrow(1, start, count), states = r:narrow(0, start, count) } end
      local probe = train(self, mode_index, inputs, x:size(2), function(step) return batch((step - 1) * size, size) end, 'pair', check)
      local test = batch(first, settings.test_batches * size)
      local outputs = tycho.no_grad(probe.outputs, probe, test)
      for i, input in ipairs(inputs) do check_scores(self, outputs, i - 1, mode, input, test.states, nil, 'pair', check) end
    end
  end
end

-- ---- single embeddings ----

local function check_linear(dir, check)
  local self = open(dir, 'linear', 'pair')
  local settings, given = self.settings, self.inputs
  local size, latents = settings.batch_pairs, given.i_latent
  local first, second = given.rows_train:select(1, 0):contiguous(), given.rows_train:select(1, 1):contiguous()
  local function range(start, count)
    local list = {}
    for i = 1, count do list[i] = start + i - 1 end
    return list
  end
  local function pairs_of(step) return range((step - 1) * size, size) end
  local function twice(x) return tycho.cat { x, x } end
  for mode_index, mode in ipairs(settings.modes) do
    -- Features of both views.
    local function features(rows, states, labels)
      local x = given.feature:index_select(rows)
      x = x:reshape { 1, x:size(0), x:size(1) }
      return { raw = x, unit = x, states = states, labels = labels }
    end
    local probe = train(self, mode_index, { { 'feat' } }, given.feature:size(1), function(step)
      local list = pairs_of(step)
      local l = latents:index_select(list)
      return features(tycho.cat { first:index_select(list), second:index_select(list) }, tycho.cat { l:select(1, 0), l:select(1, 1) },
        twice(given.y:index_select(list)))
    end, 'linear', check)
    local function outputs_of(batch) return tycho.no_grad(probe.outputs, probe, batch) end
    check_scores(self, outputs_of(features(given.rows_eval, given.eval_latent, given.eval_y)), 0, mode, { 'feat' }, given.eval_latent,
      given.eval_y, 'linear', check)

    -- z+ of the second view, zr of the first; held out: z+ of single images, zr of other pairs.
    local inputs = {}
    for _, kind in ipairs { 'zplus', 'zr' } do
      for _, c in ipairs(settings.contexts) do inputs[#inputs + 1] = { kind, c } end
    end
    local function stacked(rows_of, kinds)
      local list = {}
      for i, input in ipairs(inputs) do
        list[i] = given[('z/%s/c%d'):format(mode, input[2])]:index_select(rows_of[kinds or input[1]])
      end
      return tycho.stack(list)
    end
    probe = train(self, mode_index, inputs, given[('z/%s/c%d'):format(mode, settings.contexts[1])]:size(1), function(step)
      local list = pairs_of(step)
      local own, other = latents:index_select(list):select(1, 0), latents:index_select(list):select(1, 1)
      local raw = stacked { zplus = second:index_select(list), zr = first:index_select(list) }
      local states = {}
      for i, input in ipairs(inputs) do states[i] = input[1] == 'zr' and single_probes.targets(mode, own, other) or other end
      return { raw = raw, unit = raw:normalize(), states = tycho.stack(states), labels = given.y:index_select(list) }
    end, 'linear', check)
    local test_pairs = range(latents:size(0) - given.rows_test:numel(), given.rows_test:numel())
    local l = latents:index_select(test_pairs)
    local held_out = {
      zplus = { rows = given.rows_eval, target = given.eval_latent, labels = given.eval_y },
      zr = { rows = given.rows_test, target = single_probes.targets(mode, l:select(1, 0), l:select(1, 1)),
        labels = given.y:index_select(test_pairs) },
    }
    for kind, data in pairs(held_out) do
      local raw = stacked({ [kind] = data.rows }, kind)
      local outputs = outputs_of { raw = raw, unit = raw:normalize() }
      for i, input in ipairs(inputs) do
        if input[1] == kind then check_scores(self, outputs, i - 1, mode, input, data.target, data.labels, 'linear', check) end
      end
    end
  end
end

return function(dir, report)
  local check = compare.reporter(report)
  compare.guard(report, 'pair', function() check_pair(dir, check) end)
  compare.guard(report, 'linear', function() check_linear(dir, check) end)
end
