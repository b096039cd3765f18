-- Multi-head self-attention with one fused projection to queries, keys and values (GPT-2's names: c_attn, c_proj).
local Module = require 'tycho.nn.Module'
local op = require 'tycho.op'
local Linear = require 'tycho.nn.Linear'

local SelfAttention = Module.class()

function SelfAttention:init(width, heads)
  op.check_count('SelfAttention', width, 'width')
  op.check_count('SelfAttention', heads, 'heads')
  if width % heads ~= 0 then error(('n_embd %d must be a multiple of n_head %d'):format(width, heads), 0) end
  self.c_attn = Linear(width, 3 * width)
  self.c_proj = Linear(width, width)
  self.heads = heads
end

-- x (B,T,E). mask: uint8 (T,T), 0 hides, or nil. memory: {k =, v =} of shape (H,M,D) that every sequence sees first, or nil.
-- Returns y (B,T,E), and keys and values (B,H,T,D) of x.
function SelfAttention:forward(x, mask, memory) return self:attend(self.c_attn(x), mask, memory) end

-- The same from queries, keys and values qkv (B,T,3E), which c_attn made.
function SelfAttention:attend(qkv, mask, memory)
  local y, kv = qkv:self_attention(self.heads, { mask = mask, memory_k = memory and memory.k, memory_v = memory and memory.v })
  return self.c_proj(y), kv
end

return SelfAttention
