-- gradcheck(fn, inputs, options): compares backward with central differences in double precision.
-- fn(unpack(inputs)) -> tensor; inputs: f64 tensors (others are passed through as they are). Raises naming the input and the element
-- where they differ most; returns the largest relative error. options: {step = 1e-6, tolerance = 1e-6, device = 'cpu': where fn computes}.
-- gradcheck(record): the same for an op's record (tycho.op) on what its sample draws.
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'
local autograd = require 'tycho.autograd'
local generator = require 'tycho.generator'
local check_options = require 'tycho.options'
local op = require 'tycho.op'

-- The inputs on a device; those of the list checked are leaves.
local function placed(inputs, checked, device)
  local list = {}
  for i = 1, table.maxn(inputs) do list[i] = tensor.is_tensor(inputs[i]) and inputs[i]:to(device) or inputs[i] end
  for _, i in ipairs(checked) do list[i] = (list[i] == inputs[i] and list[i]:clone() or list[i]):requires_grad_() end
  return list
end

local function value(fn, inputs, weights, device)
  return autograd.no_grad(function()
    local list = placed(inputs, {}, device)
    return (fn(unpack(list, 1, table.maxn(list))):cpu() * weights):sum():item()
  end)
end

return function(fn, inputs, options)
  if type(fn) == 'table' and not tensor.is_tensor(fn) then
    if not fn.sample then lib.raise('gradcheck: the record has no sample = function(generator) that returns arguments') end
    fn, inputs, options = op.new(fn), { fn.sample(generator(0, 5)) }, inputs
  end
  options = check_options('gradcheck', options, { step = true, tolerance = true, device = true })
  local step, tolerance = options.step or 1e-6, options.tolerance or 1e-6
  local checked = {}
  for i = 1, table.maxn(inputs) do
    local x = inputs[i]
    if tensor.is_tensor(x) and x.dtype == 'f64' then
      checked[#checked + 1] = i
    elseif type(x) == 'table' and not tensor.is_tensor(x) and tensor.is_tensor(x[1]) then
      lib.raise('gradcheck: pass a list of tensors through a function of its entries')
    end
  end
  local device = options.device or 'cpu'
  local leaves = placed(inputs, checked, device)
  local y = fn(unpack(leaves, 1, table.maxn(leaves)))
  local weights = generator(7, 1):normal_tensor(y.shape, 'f64')
  y:backward(weights:to(device))
  local worst = 0
  for _, i in ipairs(checked) do
    local x, g = inputs[i], leaves[i].grad
    g = g and g:cpu()
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
      local above = value(fn, probe, weights, device)
      p[j] = at - step
      local below = value(fn, probe, weights, device)
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
