-- Scores: R2, accuracy, similarities, R2 by position in the context. Nothing here is differentiable on purpose.
local tycho = require 'tycho'

local M = {}

-- In double where there is double: devices compute in float, with sums in double.
local function wide(x) return x:to(x.device == 'cpu' and 'f64' or 'f32') end

-- R2 of rows that come in pieces: meter:add(output, target), meter:value().
local R2 = {}
R2.__index = R2
function M.r2_meter() return setmetatable({ residual = 0, sum = 0, squares = 0, count = 0 }, R2) end

function R2:add(output, target)
  tycho.no_grad(tycho.scope, function()
    output, target = output:cpu():to('f64'), target:cpu():to('f64')
    self.residual = self.residual + (target - output):square():sum():item()
    self.sum, self.squares = self.sum + target:sum():item(), self.squares + target:square():sum():item()
    self.count = self.count + target:numel()
  end)
end
function R2:value() return 1 - self.residual / (self.squares - self.sum ^ 2 / self.count) end

-- 1 - sum (y - o)^2 / sum (y - mean y)^2 with one mean for the whole matrix, as the reference. A constant predictor therefore
-- scores above 0 where columns have different means (M.floor). As a scalar tensor (f64), for meters that must not wait for a device; for (P,N,D)
-- one score for each of P matrices, a tensor (P).
function M.r2_tensor(output, target)
  return tycho.no_grad(function()
    output, target = wide(output), wide(target)
    local dims = target.ndim == 3 and { 1, 2 } or nil
    local around = (target - target:mean(dims, true)):square():sum(dims)
    return 1 - (target - output):square():sum(dims) / around
  end)
end
function M.r2(output, target) return M.r2_tensor(output, target):item() end

-- R2 of the best constant predictor: each column's own mean.
function M.floor(target)
  return tycho.no_grad(function() return M.r2(target:mean(0, true):expand(target.shape), target) end)
end

-- Share of rows whose largest logit is the label's, of rows that come in pieces: meter:add(logits, labels), meter:value().
local Accuracy = {}
Accuracy.__index = Accuracy
function M.accuracy_meter() return setmetatable({ hits = 0, count = 0 }, Accuracy) end

function Accuracy:add(logits, labels)
  tycho.no_grad(tycho.scope, function()
    local _, best = logits:max()
    best, labels = best:cpu(), labels:cpu()
    local n, found, wanted = labels:numel(), best:ptr(), labels:ptr()
    for i = 0, n - 1 do
      if found[i] == wanted[i] then self.hits = self.hits + 1 end
    end
    self.count = self.count + n
  end)
end
function Accuracy:value() return self.hits / self.count end

-- Share of rows whose largest logit is the label's, as a scalar tensor (f64).
function M.accuracy_tensor(logits, labels)
  return tycho.no_grad(function()
    local _, best = logits:max()
    return wide(best):eq(wide(labels)):mean()
  end)
end
function M.accuracy(logits, labels) return M.accuracy_tensor(logits, labels):item() end

-- p (2B,D): mean |cosine| of the pairs, mean of the full cosine matrix (diagonal included), and |cosine| of each pair. The second is the squared
-- length of the mean of the unit rows, which needs no matrix.
function M.similarities(p)
  return tycho.no_grad(function()
    local unit = p:detach():normalize()
    local pairs_ = unit:reshape { -1, 2, unit:size(1) }
    local each = (pairs_:select(1, 0) * pairs_:select(1, 1)):sum(-1):abs()
    return each:mean(), unit:mean(0):square():sum(), each
  end)
end

-- Rows (N,D) of sequences of T as (P,S,D): those at P positions of all S whole sequences. Rows beyond the last one are left out.
function M.at_positions(rows, T, positions)
  local sequences = math.floor(rows:size(0) / T)
  return rows:narrow(0, 0, sequences * T):reshape({ sequences, T, rows:size(1) }):transpose(0, 1):index_select(positions)
end

-- R2 at the positions (default {0, 1, T-2, T-1}) of sequences of T rows: a list of {position, scalar tensor}, empty where no sequence is whole.
function M.r2_by_position(output, target, T, positions)
  if output:size(0) < T then return {} end
  positions = positions or { 0, 1, T - 2, T - 1 }
  return tycho.no_grad(function()
    local list, scores = {}, M.r2_tensor(M.at_positions(output, T, positions), M.at_positions(target, T, positions))
    for i, position in ipairs(positions) do list[i] = { position, scores:select(0, i - 1) } end
    return list
  end)
end

return M
