-- Dynamic loss scaling for float16, whose smallest numbers are too large for many gradients: the loss is multiplied by a scale, and the optimiser
-- divides the gradients by it again. PyTorch's rules, names and defaults: a step with a gradient that is not finite is skipped and halves the scale,
-- and growth_interval steps without one double it. All of it happens on the device; nothing waits.
--
--   scaler:scale(loss):backward(); scaler:step(optimizer); scaler:update()
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'
local op = require 'tycho.op'
local check_options = require 'tycho.options'

local GradScaler = {}
GradScaler.__index = GradScaler

local MOST_IN_A_ROW = 20 -- overflows: from 65536 the scale is below 1 by then

function GradScaler:scale(loss) return loss * self.factor end

-- Steps an optimiser of gradients of the scaled loss, or skips it when one of them is not finite.
function GradScaler:step(optimizer)
  self.overflow:add_(optimizer:find_overflow())
  optimizer:step(self.factor)
end

-- Ends a step of training: the scale follows from what all optimisers found since the last call.
function GradScaler:update()
  local library = self.factor.lib
  tensor.touch(self.factor, 'GradScaler:update')
  lib.check(library.ty_update_scale(self.factor.c, self.counts.c, self.overflow.c, self.growth_factor, self.backoff_factor,
    self.growth_interval), library)
  self.overflow:zero_()
end

-- The scale, and how many steps were skipped. Waits for the device.
function GradScaler:get_scale() return self.factor:item() end
function GradScaler:skipped() return self.counts:select(0, 2):item() end

-- Raises where the last steps all overflowed, limit of them [opt] or 20: then it is not the scale that is too large. Waits for the device.
function GradScaler:check(limit)
  local row = self.counts:select(0, 1):item()
  if row < (limit or MOST_IN_A_ROW) then return end
  error(('the gradients of the last %d steps were not finite in float16, down to a loss scale of %g, and no weight has changed since; train with '
    .. 'amp=bf16 or amp=off, or with a lower learning_rate'):format(row, self:get_scale()), 0)
end

-- For a checkpoint: table name -> tensor.
function GradScaler:state_dict() return { scale = self.factor:cpu(), counts = self.counts:cpu() } end
function GradScaler:load_state_dict(source)
  if not (source.scale and source.counts) then error('the checkpoint has no state of the loss scaling: it was made without it', 0) end
  self.factor:copy_(source.scale)
  self.counts:copy_(source.counts)
end

local defaults = { init_scale = 65536, growth_factor = 2, backoff_factor = 0.5, growth_interval = 2000 }

-- device: where the parameters are (default 'cpu'). options: {init_scale=65536, growth_factor=2, backoff_factor=0.5, growth_interval=2000}
return function(device, options)
  local self = setmetatable({}, GradScaler)
  options = check_options('GradScaler', options, defaults)
  for key, value in pairs(defaults) do
    self[key] = options[key] or value
    op.check_number('GradScaler', self[key], key)
  end
  self.factor = tensor.full({}, self.init_scale, 'f32', device)
  self.counts = tensor.zeros({ 3 }, 'i64', device) -- steps since the scale changed, overflows in a row, overflows
  self.overflow = tensor.zeros({}, 'f32', device)
  for _, name in ipairs { 'factor', 'counts', 'overflow' } do self[name].storage.lasting = true end
  return self
end
