-- A pre-norm transformer block: x + attn(ln_1 x), then x + mlp(ln_2 x); MLP of four times the width with exact GELU.
local Module = require 'tycho.nn.Module'
local Linear = require 'tycho.nn.Linear'
local LayerNorm = require 'tycho.nn.LayerNorm'
local SelfAttention = require 'tycho.nn.SelfAttention'

local MLP = Module.class { scoped = true }
function MLP:init(width)
  self.c_fc = Linear(width, 4 * width)
  self.c_proj = Linear(4 * width, width)
end
function MLP:forward(x) return self.c_proj(self.c_fc(x):gelu()) end

local TransformerBlock = Module.class()

function TransformerBlock:init(width, heads)
  self.ln_1 = LayerNorm(width)
  self.attn = SelfAttention(width, heads)
  self.ln_2 = LayerNorm(width)
  self.mlp = MLP(width)
end

-- Arguments and results as SelfAttention:forward.
function TransformerBlock:forward(x, mask, memory) return self:attend(x, self:project(x), mask, memory) end

-- Queries, keys and values of x: all that does not depend on mask and memory.
function TransformerBlock:project(x) return self.attn.c_attn(self.ln_1(x)) end

-- The rest, from x and its projections.
function TransformerBlock:attend(x, qkv, mask, memory)
  local y, kv = self.attn:attend(qkv, mask, memory)
  x = x + y
  return x + self.mlp(self.ln_2(x)), kv
end

return TransformerBlock
