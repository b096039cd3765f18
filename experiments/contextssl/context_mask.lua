-- Which tokens a token may attend to. Masks are uint8 (T,T): 1 = row may see column. Edit these functions to change the policy.
local tycho = require 'tycho'

local M = {}

local by_size = {} -- masks are made in every step, and a loop that LuaJIT leaves to its interpreter takes as long as a step on a GPU

-- Causal, and the second token of a pair never sees the first: otherwise prediction is copying.
function M.pair_mask(T)
  if not by_size[T] then
    local mask = tycho.keep(tycho.zeros({ T, T }, 'u8'))
    local p = mask:ptr()
    for row = 0, T - 1 do
      for column = 0, row do
        if not (row % 2 == 1 and column == row - 1) then p[row * T + column] = 1 end
      end
    end
    by_size[T] = mask
  end
  return tycho.empty({ T, T }, 'u8'):copy_(by_size[T])
end

-- The context mask of one layer: a pair of columns is kept where its draw is >= prob, a token always sees itself, and nothing beyond
-- the pair mask. draws: uniforms (T, T/2), or nil to draw them from generator.
function M.random_mask(T, prob, draws, generator)
  draws = draws or generator:uniform_tensor { T, T / 2 }
  local mask = M.pair_mask(T)
  local p, u = mask:ptr(), draws:ptr()
  for pair = 0, T * T / 2 - 1 do
    if u[pair] < prob then p[2 * pair], p[2 * pair + 1] = 0, 0 end
  end
  for token = 0, T - 1 do p[token * (T + 1)] = 1 end
  return mask
end

-- The masks of one training step, one per layer, the same for all sequences and heads.
function M.training_masks(config, generator)
  local masks = {}
  for layer = 1, config.n_layer do
    masks[layer] = config.random_mask and M.random_mask(config.block_size, config.mask_prob, nil, generator)
      or M.pair_mask(config.block_size)
  end
  return masks
end

return M
