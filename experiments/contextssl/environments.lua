-- Environments: which part of the action a context speaks of. One is drawn for a whole batch. Edit these to add your own.
local M = {}

M.names = { 'rot', 'color', 'rotcolor' }

-- Columns of the action that an environment keeps: the first (counted from 0), and how many. none is for evaluation.
local kept = { rot = { 0, 4 }, color = { 4, 2 }, rotcolor = { 0, 6 }, none = { 0, 0 } }

function M.is_known(name) return kept[name] ~= nil end

-- Draws rot, color or rotcolor with probabilities env_ratio.
function M.sample(env_ratio, generator)
  local u, total = generator:uniform(), 0
  for i, name in ipairs(M.names) do
    total = total + env_ratio[i]
    if u < total then return name end
  end
  for i = #M.names, 1, -1 do
    if env_ratio[i] > 0 then return M.names[i] end
  end
end

-- The sum of three numbers >= 0, or nil when env_ratio is something else.
local function sum(env_ratio)
  if type(env_ratio) ~= 'table' or #env_ratio ~= #M.names then return nil end
  local total = 0
  for _, p in ipairs(env_ratio) do
    if type(p) ~= 'number' or not (p >= 0) then return nil end
    total = total + p
  end
  return total
end

-- Three probabilities: numbers >= 0 that sum to 1 within 1e-6.
function M.is_ratio(env_ratio)
  local total = sum(env_ratio)
  return total ~= nil and math.abs(total - 1) <= 1e-6
end

-- What to add to a sentence about a ratio that is not one.
function M.sum_text(env_ratio)
  local total = sum(env_ratio)
  return total and (', which sums to %.7g'):format(total)
end

-- The action r (B,6) with the attributes that the environment does not speak of set to zero. A copy.
function M.restrict(r, environment)
  local range = kept[environment]
  local out = r:clone():zero_()
  out:narrow(1, range[1], range[2]):copy_(r:narrow(1, range[1], range[2]))
  return out
end

function M.has_rotation(environment) return environment ~= 'color' end
function M.has_color(environment) return environment ~= 'rot' end

return M
