-- Weighted k-nearest-neighbour classification on the unit sphere (Wu et al. 2018), the monitor of the training.
local tycho = require 'tycho'

local M = {}

local CHUNK = 256 -- queries whose similarities to the whole bank are held at a time

-- The k largest of row[0 .. m-1] as a list of positions, best first: a heap whose root is the smallest of those kept.
local function largest(row, m, k, heap)
  local size = 0
  local function sink(i)
    while true do
      local child = 2 * i
      if child > size then return end
      if child < size and row[heap[child + 1]] < row[heap[child]] then child = child + 1 end
      if row[heap[i]] <= row[heap[child]] then return end
      heap[i], heap[child] = heap[child], heap[i]
      i = child
    end
  end
  for j = 0, k - 1 do heap[j + 1] = j end
  size = k
  for i = math.floor(k / 2), 1, -1 do sink(i) end
  for j = k, m - 1 do
    if row[j] > row[heap[1]] then
      heap[1] = j
      sink(1)
    end
  end
  local best = { unpack(heap, 1, k) }
  table.sort(best, function(a, b) return row[a] > row[b] or (row[a] == row[b] and a < b) end)
  return best
end

local function vote(row, neighbours, label, classes, t)
  local votes, voted = {}, {}
  for _, j in ipairs(neighbours) do
    local class = tonumber(label[j])
    if class < 0 or class >= classes then error(('kNN: label %d is outside 0..%d'):format(class, classes - 1), 0) end
    if not votes[class] then
      votes[class] = 0
      voted[#voted + 1] = class
    end
    votes[class] = votes[class] + math.exp(row[j] / t)
  end
  table.sort(voted, function(a, b) return votes[a] > votes[b] or (votes[a] == votes[b] and a < b) end)
  return voted
end

-- Calls fn(similarities to the bank's rows, positions of the k largest, best first) for each query in turn. query (N,D) and bank (M,D) are unit rows.
local function each(query, bank, k, fn)
  local heap, m = {}, bank:size(0)
  for start = 0, query:size(0) - 1, CHUNK do
    local count = math.min(CHUNK, query:size(0) - start)
    tycho.no_grad(tycho.scope, function()
      local similarity = query:narrow(0, start, count):matmul(bank:transpose(0, 1)):cpu()
      for i = 0, count - 1 do
        local row = similarity:ptr() + i * m
        fn(row, largest(row, m, math.min(k, m), heap))
      end
    end)
  end
end

-- Rows of the bank nearest to each query, counted from 0, best first: a list of N lists of k.
function M.nearest(query, bank, k)
  local out = {}
  each(query, bank, k, function(_, nearest) out[#out + 1] = nearest end)
  return out
end

-- Classes of each query in the order of their votes. labels int64 (M). A neighbour votes exp(s / t) for its class. Returns a list of N lists of
-- classes with votes, best first.
function M.predict(query, bank, labels, classes, k, t)
  local out = {}
  each(query, bank, k, function(row, nearest) out[#out + 1] = vote(row, nearest, labels:ptr(), classes, t) end)
  return out
end

-- Share of queries whose first class is the label's.
function M.accuracy(predictions, labels)
  local hits = 0
  for i, voted in ipairs(predictions) do
    if voted[1] == tonumber(labels:ptr()[i - 1]) then hits = hits + 1 end
  end
  return hits / #predictions
end

return M
