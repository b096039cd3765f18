-- The context at evaluation: pairs of the train set, encoded once; their keys and values are the memory that all queries share.
local tycho = require 'tycho'
local environments = require 'experiments.contextssl.environments'
local context_mask = require 'experiments.contextssl.context_mask'

local M = {}

-- The memory of every layer for one mode (rot, color, none) from a context {x (T,3,H,W), r (T/2,6)}: list of {k, v} of shape (H,T,D). The
-- model must be in eval mode.
function M.encode(model, context, mode)
  return tycho.no_grad(function()
    local mask = context_mask.pair_mask(model.predictor.options.block_size)
    local _, kv = model.predictor:padded(model.enc(context.x), environments.restrict(context.r, mode), mask)
    local memory = {}
    for i, layer in ipairs(kv) do memory[i] = { k = layer.k:select(0, 0):clone(), v = layer.v:select(0, 0):clone() } end
    return memory
  end)
end

-- The first c tokens of a memory; nil for c = 0: a query then sees only itself. c is even.
function M.cut(memory, c)
  if c == 0 then return nil end
  local out = {}
  for i, layer in ipairs(memory) do
    if c % 2 ~= 0 or c > layer.k:size(1) then
      error(('context length %d must be even and at most %d'):format(c, layer.k:size(1)), 0)
    end
    out[i] = { k = layer.k:narrow(1, 0, c), v = layer.v:narrow(1, 0, c) }
  end
  return out
end

-- Embeddings of single queries: features f (N,E), actions r (N,6) or nil for zero -> (N, projection_dim). memory: of M.cut.
function M.embed(model, f, r, memory) return M.attend(model, M.project(model, f, r), memory) end

-- The part of M.embed that is the same for every memory.
function M.project(model, f, r)
  return tycho.no_grad(function()
    local predictor = model.predictor
    f = f:to(model:device())
    local tokens = f
    if not predictor.options.is_invariant then
      tokens = tycho.cat({ f, r and r:to(f.device) or tycho.zeros({ f:size(0), predictor.options.actions }, 'f32', f.device) }, 1)
    end
    return predictor:project(tokens:reshape { f:size(0), 1, tokens:size(1) })
  end)
end

-- The rest of it.
function M.attend(model, projected, memory)
  return tycho.no_grad(tycho.scope, function()
    local y = model.predictor:attend(projected, nil, memory)
    return y:reshape { y:size(0), y:size(2) }
  end)
end

return M
