-- Environments: which part of the action a context speaks of. One is drawn for a whole batch. Edit these to add your own.
local M = {}

M.names = { 'rot', 'color', 'rotcolor' }

-- Columns of the action that an environment keeps: the first (counted from 0), and how many. none is for evaluation.
local kept = { rot = { 0, 4 }, color = { 4, 2 }, rotcolor = { 0, 6 }, none = { 0, 0 } }

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

-- env_ratio must be three numbers >= 0 that sum to 1 within 1e-6.
function M.check_ratio(env_ratio)
  local sum, ok = 0, type(env_ratio) == 'table' and #env_ratio == 3
  for i = 1, ok and 3 or 0 do
    ok = ok and type(env_ratio[i]) == 'number' and env_ratio[i] >= 0
    sum = sum + (tonumber(env_ratio[i]) or 0)
  end
  if not ok or math.abs(sum - 1) > 1e-6 then
    error(('env_ratio must be three numbers >= 0 that sum to 1 (rot, color, rotcolor), got [%s]'):format(
      type(env_ratio) == 'table' and table.concat(env_ratio, ', ') or tostring(env_ratio)), 0)
  end
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
