-- matmul(a, b): (...,M,K) x (...,K,N) -> (...,M,N); leading dims broadcast.
local tensor = require 'tycho.tensor'
local lib = require 'tycho.lib'
local op = require 'tycho.op'

local function multiply(a, b, shape)
  local y = tensor.empty(shape, a.dtype, a.device)
  lib.check(y.lib.ty_matmul(y.c, a.c, b.c, 0), y.lib)
  return y
end

local function leading(x) return { unpack(x.shape, 1, x.ndim - 2) } end
local function with(list, m, n)
  local shape = { unpack(list) }
  shape[#shape + 1] = m
  shape[#shape + 1] = n
  return shape
end

local function broadcast(a, b)
  local la, lb, out = leading(a), leading(b), {}
  for i = 1, math.max(#la, #lb) do
    local sa, sb = la[#la + 1 - i] or 1, lb[#lb + 1 - i] or 1
    if sa ~= sb and sa ~= 1 and sb ~= 1 then
      lib.raise(('matmul: leading dims of %s and %s do not broadcast'):format(tensor.shape_text(a), tensor.shape_text(b)))
    end
    table.insert(out, 1, sa == 1 and sb or sa)
  end
  return out
end

return {
  inputs = { 'a', 'b' },
  forward = function(ctx, a, b)
    op.check_real('matmul', a, 'a')
    if a.ndim < 2 or b.ndim < 2 or a:size(-1) ~= b:size(-2) or a.type ~= b.type then
      lib.raise(('matmul: expected (..., M, K) and (..., K, N), got %s %s and %s %s'):format(a.dtype, tensor.shape_text(a), b.dtype,
        tensor.shape_text(b)))
    end
    ctx:save(a, b)
    local lead = broadcast(a, b)
    return multiply(a:expand(with(lead, a:size(-2), a:size(-1))), b:expand(with(lead, b:size(-2), b:size(-1))),
      with(lead, a:size(-2), b:size(-1)))
  end,
  backward = function(ctx, dy)
    local a, b = ctx:saved()
    return ctx.needs[1] and op.sum_to(dy:matmul(b:transpose(-1, -2)), a), ctx.needs[2] and op.sum_to(a:transpose(-1, -2):matmul(dy), b)
  end,
  sample = function(g) return g:normal_tensor({ 2, 3, 4 }, 'f64'), g:normal_tensor({ 4, 5 }, 'f64') end,
}
