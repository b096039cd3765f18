-- Mean reciprocal rank and hit rates: how well an embedding after an action finds the view that the action leads to.
local tycho = require 'tycho'

local M = {}
M.HITS = { 1, 2, 5, 10 }
M.NAMES = { 'MRR', 'H@1', 'H@2', 'H@5', 'H@10' } -- of the entries of a summary

-- Ranks (1 = best) of the target view among the views of its object by cosine, or by the plain product where normalize is false. zr (N,D): queries;
-- zplus (M,D): embeddings of all views in the order object * views + view; target: int64 (N), each query's row in that order. Equal scores, and
-- those that are not numbers, count against the query. Queries of objects that are not stored whole are left out. Returns a list of ranks and the
-- list of kept queries (from 0).
function M.ranks(zr, zplus, target, views, normalize)
  local ranks, kept = {}, {}
  local whole = math.floor(zplus:size(0) / views)
  local rows, n = target:ptr(), target:numel()
  local function object_of(i) return math.floor(tonumber(rows[i]) / views) end
  -- Neighbouring queries of one object share a product.
  local function rank_run(first, count, object)
    local queries, candidates = zr:narrow(0, first, count), zplus:narrow(0, object * views, views)
    if normalize ~= false then queries, candidates = queries:normalize(), candidates:normalize() end
    local product = queries:matmul(candidates:transpose(0, 1)):cpu()
    local scores = product:ptr()
    for i = 0, count - 1 do
      local own, rank = scores[i * views + tonumber(rows[first + i]) % views], 0
      for v = 0, views - 1 do
        if not (scores[i * views + v] < own) then rank = rank + 1 end
      end
      ranks[#ranks + 1], kept[#kept + 1] = rank, first + i
    end
  end
  local first = 0
  while first < n do
    local object, last = object_of(first), first + 1
    while last < n and object_of(last) == object do last = last + 1 end
    if object < whole then tycho.no_grad(tycho.scope, rank_run, first, last - first, object) end
    first = last
  end
  return ranks, kept
end

-- {mrr, hit rate at 1, 2, 5, 10} of a list of ranks.
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

-- The summary of ranks drawn at random among this many views.
function M.chance(views)
  local ranks = {}
  for rank = 1, views do ranks[rank] = rank end
  return M.summary(ranks)
end

return M
