-- Learning rates as pure functions of the iteration.
local M = {}

-- Linear from 0 to base over warmup iterations, then a cosine to 0 at total (Loshchilov & Hutter 2017). it counts from 0.
function M.warmup_cosine(base, it, warmup, total)
  if it < warmup then return base * it / warmup end
  return base * 0.5 * (1 + math.cos(math.pi * (it - warmup) / (total - warmup)))
end

return M
