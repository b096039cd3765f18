-- Runs ops on a device and compares results, for the specs of devices.
local assert = require 'luassert'
local tycho = require 'tycho'
local op = require 'tycho.op'

local M = {}
local is_tensor = tycho.is_tensor

-- Every tensor in value, also inside tables, as fn makes it.
function M.each(value, fn)
  if is_tensor(value) then return fn(value) end
  if type(value) ~= 'table' then return value end
  local out = {}
  for k, v in pairs(value) do out[k] = M.each(v, fn) end
  return out
end

-- An op whose result has two users, so that its gradient arrives in two parts.
function M.used_twice(name)
  local fn = op.find(name)
  return function(...)
    local y = fn(...)
    return y * 0.5 + y
  end
end

-- Forward results and gradients of one op, or of a function, on a device, as float32 tensors on the CPU. sample: as an op record's, float or double.
-- dtype [opt]: 'f16' or 'bf16', to which tensors of more than one dim are rounded; the CPU computes with the rounded values in float32.
function M.results(name, sample, where, dtype)
  local leaves = {}
  local args = M.each({ sample(tycho.generator(3, 5)) }, function(x)
    if not x.type.real then return x:to(where) end
    local moved = tycho.empty_like(x, 'f32'):copy_(x)
    if dtype and x.ndim > 1 then moved = moved:to(dtype):to(where == 'cpu' and 'f32' or dtype) end
    moved = moved:to(where)
    leaves[#leaves + 1] = moved
    return moved
  end)
  local fn, record = type(name) == 'function' and name or op.find(name), op.record(name)
  for _, leaf in ipairs(record and record.skip and {} or leaves) do leaf:requires_grad_() end
  local options = args[#args]
  for _, constant in ipairs { 'running_mean', 'running_var', 'memory_k', 'memory_v' } do
    if type(options) == 'table' and not is_tensor(options) and options[constant] then options[constant].requires_grad = nil end
  end
  local y, extra = fn(unpack(args, 1, table.maxn(args)))
  if y.node then
    local gradient = tycho.generator(4, 5):normal_tensor(y.shape)
    y:backward((dtype and gradient:to(dtype):to 'f32' or gradient):to(where))
  end
  local out = { y }
  if is_tensor(extra) then out[2] = extra end
  for _, leaf in ipairs(leaves) do out[#out + 1] = leaf.grad or leaf end
  return M.each(out, function(x) return x.type.short and x:cpu():to 'f32' or x:cpu() end)
end

function M.assert_close(expected, got, tolerance, label)
  assert.equal(#expected, #got)
  for i, a in ipairs(expected) do
    local b = got[i]
    assert.same(a.shape, b.shape)
    assert.equal(a.dtype, b.dtype)
    local x, y = a:to('f64'):contiguous(), b:to('f64'):contiguous()
    local p, q, scale = x:ptr(), y:ptr(), 1e-6
    for j = 0, x:numel() - 1 do
      if p[j] == p[j] then scale = math.max(scale, math.abs(p[j])) end
    end
    for j = 0, x:numel() - 1 do
      local both_nan = p[j] ~= p[j] and q[j] ~= q[j]
      assert(both_nan or math.abs(p[j] - q[j]) <= tolerance * scale,
        ('%s: result %d, element %d: %.9g on the CPU, %.9g'):format(label, i, j, p[j], q[j]))
    end
  end
end

return M
