-- pair_cross_entropy(s, temperature, floor): of similarities s (2B,2B) in which rows 2k and 2k+1 are a pair's, the mean over rows of the cross
-- entropy of max(s, floor) / temperature with the row's partner as the class; a row itself is none. temperature is 1 and no floor unless given.
local tensor = require 'tycho.tensor'
local lib = require 'tycho.lib'
local op = require 'tycho.op'

return {
  inputs = { 's' },
  forward = function(ctx, s, temperature, floor)
    op.check_real('pair_cross_entropy', s)
    temperature, floor = temperature or 1, floor or -math.huge
    s = tensor.dense(s)
    local loss, lse = tensor.empty({}, s.dtype, s.device), ctx:own(tensor.empty({ s.ndim > 0 and s:size(0) or 0 }, s.dtype, s.device))
    lib.check(loss.lib.ty_pair_cross_entropy(loss.c, lse.c, s.c, temperature, floor), loss.lib)
    ctx:save(s)
    ctx.lse, ctx.temperature, ctx.floor = lse, temperature, floor
    return loss
  end,
  backward = function(ctx, dloss)
    local s = ctx:saved()
    local ds = tensor.empty_like(s)
    lib.check(ds.lib.ty_pair_cross_entropy_back(ds.c, dloss.c, ctx.lse.c, s.c, ctx.temperature, ctx.floor), ds.lib)
    return ds
  end,
  sample = function(g) return g:normal_tensor({ 6, 6 }, 'f64'), 0.5, 0.1 end,
}
