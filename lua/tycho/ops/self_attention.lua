-- self_attention(qkv, heads, options): attention from packed projections. qkv (B,T,3E) -> y (B,T,E), and {k=, v=} as views
-- (B,H,T,D). options as attention's (mask, memory_k, memory_v); scale 1/sqrt(D). The heads are strided views: nothing is transposed in memory.
local tensor = require 'tycho.tensor'
local lib = require 'tycho.lib'
local op = require 'tycho.op'
local attention_options = require 'tycho.attention_options'
local check_options = require 'tycho.options'

local known = { mask = true, memory_k = true, memory_v = true }

-- Part i of a (B,T,parts*E) tensor as (B,H,T,D).
local function heads_of(x, i, width, heads)
  return x:narrow(2, i * width, width):reshape_heads(heads)
end

return {
  inputs = { 'qkv' },
  forward = function(ctx, qkv, heads, options)
    options = check_options('self_attention', options, known)
    op.check_real('self_attention', qkv, 'qkv')
    op.check_count('self_attention', heads, 'heads')
    if qkv.ndim ~= 3 or qkv:size(2) % (3 * heads) ~= 0 then
      lib.raise(('self_attention: expected qkv (B, T, 3 E) with E a multiple of %d heads, got %s'):format(heads, tensor.shape_text(qkv)))
    end
    local mask, memory_k, memory_v = attention_options(ctx, options, qkv.dtype)
    qkv = tensor.dense(qkv)
    local B, T, width = qkv:size(0), qkv:size(1), qkv:size(2) / 3
    local q, k, v = heads_of(qkv, 0, width, heads), heads_of(qkv, 1, width, heads), heads_of(qkv, 2, width, heads)
    local columns = T + (memory_k and memory_k:size(1) or 0)
    local y, p = tensor.empty({ B, T, width }, qkv.dtype, qkv.device), ctx:own(tensor.empty({ B, heads, T, columns }, qkv.dtype, qkv.device))
    local scale = 1 / math.sqrt(width / heads)
    lib.check(y.lib.ty_attention(y:reshape_heads(heads).c, p.c, q.c, k.c, v.c, mask and mask.c, memory_k and memory_k.c,
      memory_v and memory_v.c, scale), y.lib)
    ctx:save(qkv)
    ctx.p, ctx.heads, ctx.scale = p, heads, scale
    return y, { k = k, v = v }
  end,
  backward = function(ctx, dy)
    local qkv = ctx:saved()
    local heads, width = ctx.heads, qkv:size(2) / 3
    dy = tensor.dense(dy)
    local d = tensor.empty_like(qkv)
    local function part(x, i) return heads_of(x, i, width, heads).c end
    lib.check(d.lib.ty_attention_back(part(d, 0), part(d, 1), part(d, 2), dy:reshape_heads(heads).c, ctx.p.c, part(qkv, 0), part(qkv, 1),
      part(qkv, 2), ctx.scale), d.lib)
    return d
  end,
  sample = function(g)
    return g:normal_tensor({ 2, 3, 12 }, 'f64'), 2, { mask = tensor.tensor({ { 1, 0, 0 }, { 1, 1, 0 }, { 0, 1, 1 } }, 'u8') }
  end,
}
