-- gradcheck(fn, inputs, options): compares backward with central differences in double precision.
-- fn(unpack(inputs)) -> tensor; inputs: f64 tensors (others are passed through as they are). Raises naming the input and the element
-- where they differ most; returns the largest relative error. options: {step = 1e-6, tolerance = 1e-6}.
-- gradcheck(record): the same for an op's record (tycho.op) on what its sample draws.
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'
local autograd = require 'tycho.autograd'
local generator = require 'tycho.generator'
local op = require 'tycho.op'

local function value(fn, inputs, weights)
  return autograd.no_grad(function() return (fn(unpack(inputs, 1, table.maxn(inputs))) * weights):sum():item() end)
end

return function(fn, inputs, options)
  if type(fn) == 'table' and not tensor.is_tensor(fn) then
    if not fn.sample then lib.raise('gradcheck: the record has no sample = function(generator) that returns arguments') end
    fn, inputs, options = op.new(fn), { fn.sample(generator(0, 5)) }, inputs
  end
  options = options or {}
  local step, tolerance = options.step or 1e-6, options.tolerance or 1e-6
  local checked = {}
  for i = 1, table.maxn(inputs) do
    local x = inputs[i]
    if tensor.is_tensor(x) and x.dtype == 'f64' then
      inputs[i] = x:clone():requires_grad_()
      checked[#checked + 1] = i
    elseif type(x) == 'table' and tensor.is_tensor(x[1]) then
      lib.raise('gradcheck: pass a list of tensors through a function of its entries')
    end
  end
  local y = fn(unpack(inputs, 1, table.maxn(inputs)))
  local weights = generator(7, 1):normal_tensor(y.shape, 'f64')
  for _, i in ipairs(checked) do inputs[i].grad = nil end
  ;(y * weights):sum():backward()
  local worst = 0
  for _, i in ipairs(checked) do
    local x, g = inputs[i], inputs[i].grad
    local scale = 1e-3
    local numeric = {}
    local flat = x.c.data and tensor.dense(x):reshape { -1 }
    local exact = g and tensor.dense(g):reshape { -1 } or tensor.zeros({ x:numel() }, 'f64')
    local trial = flat:clone()
    local probe = {}
    for j = 1, table.maxn(inputs) do probe[j] = inputs[j] end
    probe[i] = trial:reshape(x.shape)
    for j = 0, x:numel() - 1 do
      local p = trial:ptr()
      local at = p[j]
      p[j] = at + step
      local above = value(fn, probe, weights)
      p[j] = at - step
      local below = value(fn, probe, weights)
      p[j] = at
      numeric[j] = (above - below) / (2 * step)
      scale = math.max(scale, math.abs(numeric[j]), math.abs(exact:ptr()[j]))
    end
    for j = 0, x:numel() - 1 do
      local difference = math.abs(numeric[j] - exact:ptr()[j]) / scale
      if not (difference <= tolerance) then
        lib.raise(('gradcheck: input %d, element %d: backward says %.9g, central difference %.9g (relative %.2g, allowed %.2g)'):format(i,
          j, exact:ptr()[j], numeric[j], difference, tolerance))
      end
      worst = math.max(worst, difference)
    end
  end
  return worst
end
