-- Probes: small networks that are trained on embeddings of a frozen model, to tell what those hold. Rotation by an MLP (two hidden layers of 1024),
-- colour and class by a linear layer, all by Adam. The heads of many embeddings (of every mode and context length) share nothing but the batch,
-- so their weights are stacked and one step trains them all.
local tycho = require 'tycho'
local Module = require 'tycho.nn.Module'
local initialize = require 'tycho.nn.initialize'
local progress = require 'tycho.train.progress'
local metrics = require 'experiments.contextssl.metrics'

local M = {}

local HIDDEN = 1024
local DRAWS = 200 -- stream of the seed

-- `count` networks of one shape: linear layers of the given widths with ReLU between them. weightI (count, in, out), biasI (count, 1, out), both
-- U(-1/sqrt(in), 1/sqrt(in)) at first, as PyTorch's.
M.Heads = Module.class()
function M.Heads:init(count, widths)
  rawset(self, 'depth', #widths - 1)
  for i = 1, self.depth do
    local bound = 1 / math.sqrt(widths[i])
    self['weight' .. i] = Module.parameter(initialize.uniform({ count, widths[i], widths[i + 1] }, bound))
    self['bias' .. i] = Module.parameter(initialize.uniform({ count, 1, widths[i + 1] }, bound))
  end
end

-- x (count, B, in) -> (count, B, out)
function M.Heads:forward(x)
  for i = 1, self.depth do
    x = x:matmul(self['weight' .. i]) + self['bias' .. i]
    if i < self.depth then x = x:relu() end
  end
  return x
end

local Probe = {}
Probe.__index = Probe

-- Heads on a device for `count` embeddings of the given width: rotation (4), color (2) and, where classes is given, class.
function M.new(count, width, learning_rate, where, classes)
  local self = setmetatable({ count = count, device = where, heads = {
    rotation = M.Heads(count, { width, HIDDEN, HIDDEN, 4 }),
    color = M.Heads(count, { width, 2 }),
    class = classes and M.Heads(count, { width, classes }),
  } }, Probe)
  local parameters = {}
  for _, name in ipairs { 'rotation', 'color', 'class' } do
    for _, p in ipairs(self.heads[name] and self.heads[name]:to(where):parameters() or {}) do parameters[#parameters + 1] = p end
  end
  self.optimizer = tycho.optim.Adam(parameters, { lr = learning_rate })
  return self
end

-- Columns of a state or an action, counted from 0: the first, and how many.
local columns = { rotation = { 0, 4 }, color = { 4, 2 } }

local function part(states, attribute) return states:narrow(-1, unpack(columns[attribute])) end

-- Output of every head by attribute, each (count, B, ...). batch: unit (count, B, width), what rotation and colour are read from; raw, of the same
-- shape, what the class is read from.
function Probe:outputs(batch)
  local heads = self.heads
  return { rotation = heads.rotation(batch.unit), color = heads.color(batch.unit), class = heads.class and heads.class(batch.raw) }
end

-- Loss of every head by attribute: mean squared error, cross entropy; each (count). batch as Probe:outputs, and states (B,6), or (count, B, 6)
-- where heads have targets of their own; labels int64 (B).
function Probe:losses(batch)
  local out, losses = self:outputs(batch), {}
  for attribute in pairs(columns) do
    losses[attribute] = (out[attribute] - part(batch.states, attribute)):square():reshape({ self.count, -1 }):mean(1)
  end
  if out.class then
    local each = {}
    for i = 0, self.count - 1 do each[i + 1] = out.class:select(0, i):cross_entropy(batch.labels) end
    losses.class = tycho.stack(each)
  end
  return losses
end

-- A batch where the heads are.
local function placed(self, batch)
  local out = {}
  for key, x in pairs(batch) do out[key] = x:to(self.device) end
  return out
end

-- One step on a batch as Probe:losses. Returns the sum of all losses.
function Probe:step(batch)
  return tycho.scope(function()
    local losses = self:losses(placed(self, batch))
    local loss = losses.rotation:sum() + losses.color:sum()
    if losses.class then loss = loss + losses.class:sum() end
    self.optimizer:zero_grad()
    loss:backward()
    self.optimizer:step()
    return loss:detach()
  end)
end

-- Scores of every head over batches: lists rotation_r2 and color_r2 and, with classes, top1 (share of right classes). batches: an iterator of
-- batches as Probe:losses.
function Probe:scores(batches)
  local meters = { rotation = {}, color = {}, class = self.heads.class and {} }
  tycho.no_grad(function()
    for batch in batches do
      tycho.scope(function()
        batch = placed(self, batch)
        local out = self:outputs(batch)
        for attribute, output in pairs(out) do
          for i = 1, self.count do
            local meter = meters[attribute][i] or (attribute == 'class' and metrics.accuracy_meter or metrics.r2_meter)()
            meters[attribute][i] = meter
            local target = attribute == 'class' and batch.labels or part(batch.states, attribute)
            meter:add(output:select(0, i - 1), target.ndim == 3 and target:select(0, i - 1) or target)
          end
        end
      end)
    end
  end)
  local function values(attribute)
    local list = {}
    for i, meter in ipairs(meters[attribute] or {}) do list[i] = meter:value() end
    return list
  end
  return { rotation_r2 = values 'rotation', color_r2 = values 'color', top1 = self.heads.class and values 'class' }
end

-- Trains for options.epochs; an epoch is a random order of options.objects objects in batches of options.batch_size. options.step(objects, generator)
-- makes one step on a list of objects, draws what it needs and returns the loss; options.log(epoch, loss) is called every options.log_interval
-- epochs with the last loss. All draws follow from options.seed. Returns false after Ctrl-C.
function M.train(options)
  local generator = tycho.generator(options.seed, DRAWS)
  local steps = math.ceil(options.objects / options.batch_size)
  local line = progress('probes', options.epochs * steps)
  tycho.on_interrupt('flag')
  local finished = true
  for epoch = 1, options.epochs do
    local order, loss = generator:permutation(options.objects), nil
    for step = 1, steps do
      local first, objects = (step - 1) * options.batch_size, {}
      for i = 1, math.min(options.batch_size, #order - first) do objects[i] = order[first + i] end
      loss = tycho.scope(options.step, objects, generator)
      finished = not tycho.interrupted()
      if not finished then break end
      line:update((epoch - 1) * steps + step, ('epoch %d'):format(epoch))
    end
    if not finished then break end
    if options.log and epoch % options.log_interval == 0 then options.log(epoch, loss:item()) end
  end
  tycho.on_interrupt(nil)
  line:finish(finished and ('trained the probes in %.0f s'):format(line:elapsed()) or 'stopped; the probes are not kept, the embeddings are')
  return finished
end

return M
