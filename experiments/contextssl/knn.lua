-- Weighted k-nearest-neighbour classification on the unit sphere (Wu et al. 2018), the monitor of the training.
local tycho = require 'tycho'

local M = {}

-- Classes of each query in the order of their votes. query (N,D) and bank (M,D) are unit rows, labels int64 (M). A neighbour votes exp(s / t) for its
-- class. Returns a list of N lists of classes with votes, best first.
function M.predict(query, bank, labels, classes, k, t)
  return tycho.no_grad(function()
    local similarity = query:matmul(bank:transpose(0, 1))
    local n, m = query:size(0), bank:size(0)
    local s, label = similarity:ptr(), labels:ptr()
    k = math.min(k, m)
    local out, order = {}, {}
    for i = 0, n - 1 do
      local row = s + i * m
      for j = 1, m do order[j] = j - 1 end
      table.sort(order, function(a, b) return row[a] > row[b] or (row[a] == row[b] and a < b) end)
      local votes, voted = {}, {}
      for j = 1, k do
        local class = tonumber(label[order[j]])
        if class < 0 or class >= classes then error(('kNN: label %d is outside 0..%d'):format(class, classes - 1), 0) end
        if not votes[class] then
          votes[class] = 0
          voted[#voted + 1] = class
        end
        votes[class] = votes[class] + math.exp(row[order[j]] / t)
      end
      table.sort(voted, function(a, b) return votes[a] > votes[b] or (votes[a] == votes[b] and a < b) end)
      out[i + 1] = voted
    end
    return out
  end)
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
