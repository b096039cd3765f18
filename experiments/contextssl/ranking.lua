-- Mean reciprocal rank and hit rates: how well an embedding after an action finds the view that the action leads to.
local tycho = require 'tycho'

local M = {}
M.HITS = { 1, 2, 5, 10 }

-- Ranks (1 = best) of the target view among the views of its object by cosine. zr (N,D): queries; zplus (M,D): stored embeddings of all views in the
-- order object * views + view; target: int64 (N), each query's row in that order. Queries of objects that are not stored whole are left
-- out. Returns a list of ranks and the list of kept queries (from 0).
function M.ranks(zr, zplus, target, views)
  return tycho.no_grad(function()
    zr, zplus = zr:normalize(), zplus:normalize()
    local ranks, kept = {}, {}
    local whole = math.floor(zplus:size(0) / views)
    local q, z, width = zr:ptr(), zplus:ptr(), zr:size(1)
    for i = 0, zr:size(0) - 1 do
      local row = tonumber(target:ptr()[i])
      local object = math.floor(row / views)
      if object < whole then
        local scores = {}
        for v = 0, views - 1 do
          local dot = 0
          for d = 0, width - 1 do dot = dot + q[i * width + d] * z[(object * views + v) * width + d] end
          scores[v] = dot
        end
        local rank = 1
        for v = 0, views - 1 do
          if scores[v] > scores[row % views] then rank = rank + 1 end
        end
        ranks[#ranks + 1], kept[#kept + 1] = rank, i
      end
    end
    return ranks, kept
  end)
end

-- {mrr, hit rate at 1, 2, 5, 10}
function M.summary(ranks)
  local out = { 0, 0, 0, 0, 0 }
  for _, rank in ipairs(ranks) do
    out[1] = out[1] + 1 / rank
    for i, k in ipairs(M.HITS) do
      if rank <= k then out[i + 1] = out[i + 1] + 1 end
    end
  end
  for i = 1, #out do out[i] = out[i] / #ranks end
  return out
end

return M
