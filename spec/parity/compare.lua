-- Distances between what we compute and what the reference computed, in double precision, and how a check is reported:
-- report(name, error, tolerance, verdict), the verdict being true, false or 'skip'.
local lfs = require 'lfs'
local tensor = require 'tycho.tensor'

local M = {}

local function values(x)
  if type(x) == 'number' then return { [0] = x }, 1 end
  if x.dtype ~= 'i64' then x = x:to('f64') end
  return tensor.dense(x):ptr(), x:numel(), x
end

-- |got - expected| / |expected| (L2). Infinite when sizes differ or a value is not a number.
function M.rel_l2(got, expected)
  local a, n, keep_a = values(got)
  local b, m, keep_b = values(expected)
  if n ~= m then return math.huge end
  local difference, norm = 0, 0
  for i = 0, n - 1 do
    local x, y = tonumber(a[i]), tonumber(b[i])
    difference, norm = difference + (x - y) ^ 2, norm + y ^ 2
  end
  if difference ~= difference then return math.huge, keep_a, keep_b end
  return norm == 0 and math.sqrt(difference) or math.sqrt(difference / norm), keep_a, keep_b
end

-- Largest absolute difference.
function M.max_abs(got, expected)
  local a, n, keep_a = values(got)
  local b, m, keep_b = values(expected)
  if n ~= m then return math.huge end
  local worst = 0
  for i = 0, n - 1 do
    local d = math.abs(tonumber(a[i]) - tonumber(b[i]))
    if not (d <= worst) then worst = d == d and d or math.huge end
  end
  return worst, keep_a, keep_b
end

-- reporter(report).l2(name, got, expected, tolerance) and .abs(...): one line each.
function M.reporter(report)
  local out = {}
  function out.l2(name, got, expected, tolerance)
    local e = M.rel_l2(got, expected)
    report(name, e, tolerance, e <= tolerance)
  end
  function out.abs(name, got, expected, tolerance)
    local e = M.max_abs(got, expected)
    report(name, e, tolerance, e <= tolerance)
  end
  return out
end

-- A check that is not made, and why.
function M.skip(report, name, why) report(name, why, 0, 'skip') end

-- Runs fn; its error counts as a miss. files: paths that fn reads; when one is not there, the check is skipped.
function M.guard(report, name, fn, files)
  for _, path in ipairs(files or {}) do
    if not lfs.attributes(path) then return M.skip(report, name, path .. ' is not there') end
  end
  local ok, message = pcall(fn)
  if not ok then report(name, tostring(message), 0, false) end
end

return M
