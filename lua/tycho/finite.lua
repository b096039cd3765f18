-- Stops at the first number that is not finite and names the op and the line that made it. Every result and every gradient is read once more while
-- this is on; off, an op asks one flag.
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'

local M = { is_on = false }

local makers = setmetatable({}, { __mode = 'k' }) -- node of the tape -> {op, line}

-- Switches it on or off for the whole process.
function M.set(on) M.is_on = on and true or false end

-- Numbers of NaN and of infinities in a real tensor.
local function count(t)
  local sum = tensor.empty(tensor.map(t.shape, function() return 1 end), t.type.short and 'f32' or t.dtype, t.device)
  lib.check(sum.lib.ty_sum(sum.c, t.c), sum.lib)
  local total = sum:item()
  sum.storage:free()
  if total - total == 0 then return 0, 0 end
  local flat = tensor.dense(t:cpu())
  local p, read, nans, infinities = flat:ptr(), flat.type.read, 0, 0
  for i = 0, flat:numel() - 1 do
    local v = read(p, i)
    if v ~= v then nans = nans + 1 elseif v - v ~= 0 then infinities = infinities + 1 end
  end
  return nans, infinities
end

-- '2 NaN and 1 infinite of 6 numbers, shape (2, 3)', or nil for a finite tensor.
local function describe(t)
  if not t.type.real or t:numel() == 0 then return nil end
  local nans, infinities = count(t)
  if nans + infinities == 0 then return nil end
  local parts = {}
  if nans > 0 then parts[1] = ('%d NaN'):format(nans) end
  if infinities > 0 then parts[#parts + 1] = ('%d infinite'):format(infinities) end
  return ('%s of %d numbers, shape %s'):format(table.concat(parts, ' and '), t:numel(), tensor.shape_text(t))
end

-- Raises when the result y of an op is not finite; inputs: its tensors, of which one may have brought it. Views make no numbers, and ops take views
-- of results that they have yet to fill.
function M.check(op, y, inputs)
  if y.node then makers[y.node] = { op, lib.caller() or '?' } end
  for i = 1, table.maxn(inputs) do
    local x = inputs[i]
    if tensor.is_tensor(x) and x.storage == y.storage then return end
  end
  local problem = describe(y)
  if not problem then return end
  local origin = 'its inputs are finite'
  for i = 1, table.maxn(inputs) do
    local x = inputs[i]
    if tensor.is_tensor(x) and describe(x) then
      origin = ('input %d is not finite already: %s'):format(i, describe(x))
      break
    end
  end
  lib.raise(('break_on_nan: %s made %s; %s'):format(op, problem, origin))
end

-- Raises when a gradient that the node's rule made is not finite.
function M.check_gradient(node, g)
  local problem = g and describe(g)
  if not problem then return end
  local maker = makers[node] or { 'an op', 'a line that ran before break_on_nan was set' }
  lib.raise(('break_on_nan: the gradient of %s, computed at %s, has %s'):format(maker[1], maker[2], problem))
end

return M
