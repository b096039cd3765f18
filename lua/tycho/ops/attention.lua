-- attention(q, k, v, options): softmax(scale q k^T) v per batch and head. q (B,H,T,D), k and v (B,H,S,D) -> (B,H,T,D).
-- options: mask = uint8 (T,S), 0 hides; scale = 1/sqrt(D); memory_k, memory_v = (H,M,D): keys and values that every sequence sees
-- in full before its own (no gradient: memory is for frozen models).
local tensor = require 'tycho.tensor'
local lib = require 'tycho.lib'
local op = require 'tycho.op'
local attention_options = require 'tycho.attention_options'
local check_options = require 'tycho.options'

local known = { mask = true, scale = true, memory_k = true, memory_v = true }

-- x, or a dense copy where its rows have gaps or share memory.
local function unit_rows(x)
  local are_apart = x:size(-2) == 1 or x:stride(-2) >= x:size(-1)
  return x:stride(-1) == 1 and are_apart and x or tensor.dense(x)
end

return {
  inputs = { 'q', 'k', 'v' },
  forward = function(ctx, q, k, v, options)
    options = check_options('attention', options, known)
    op.check_real('attention', q, 'q')
    if q.ndim ~= 4 or k.ndim ~= 4 then
      lib.raise(('attention: q and k must be (B, H, T, D), got %s and %s'):format(tensor.shape_text(q), tensor.shape_text(k)))
    end
    q, k, v = unit_rows(q), unit_rows(k), unit_rows(v)
    local mask, memory_k, memory_v = attention_options(ctx, options, q.dtype)
    local B, H, T, D = unpack(q.shape)
    local scale = options.scale or 1 / math.sqrt(D)
    local columns = k:size(2) + (memory_k and memory_k:size(1) or 0)
    local y, p = tensor.empty({ B, H, T, D }, q.dtype, q.device), ctx:own(tensor.empty({ B, H, T, columns }, q.dtype, q.device))
    lib.check(y.lib.ty_attention(y.c, p.c, q.c, k.c, v.c, mask and mask.c, memory_k and memory_k.c, memory_v and memory_v.c, scale), y.lib)
    ctx:save(q, k, v)
    ctx.p, ctx.scale = p, scale
    return y
  end,
  backward = function(ctx, dy)
    local q, k, v = ctx:saved()
    dy = unit_rows(dy)
    local dq = tensor.empty(q.shape, q.dtype, q.device)
    local dk, dv = tensor.empty(k.shape, k.dtype, k.device), tensor.empty(v.shape, v.dtype, v.device)
    lib.check(dq.lib.ty_attention_back(dq.c, dk.c, dv.c, dy.c, ctx.p.c, q.c, k.c, v.c, ctx.scale), dq.lib)
    return dq, dk, dv
  end,
  sample = function(g)
    local mask = tensor.tensor({ { 1, 0, 0, 0 }, { 1, 1, 0, 0 }, { 0, 1, 1, 1 } }, 'u8')
    return g:normal_tensor({ 2, 2, 3, 4 }, 'f64'), g:normal_tensor({ 2, 2, 4, 4 }, 'f64'), g:normal_tensor({ 2, 2, 4, 4 }, 'f64'),
      { mask = mask }
  end,
}
