-- The points of a sweep: the settings of each job. Knows nothing of scripts and processes.
local generator = require 'tycho.generator'
local hash = require 'tycho.hash'
local nearest = require 'tycho.nearest'
local values = require 'tycho.sweep.values'

local M = {}

local MOST = 10000 -- jobs

-- Keys of the sweep itself: what must stand behind them, and the value of a text or nil.
local function whole(text) return text:match('^%d+$') and tonumber(text) > 0 and tonumber(text) end
local function words(text)
  local list = values.split((text:gsub('^%[(.*)%]$', '%1')))
  return list[1] ~= '' and list
end
M.keys = {
  jobs = { 'a whole number >= 1, of jobs at a time', whole },
  seeds = { 'a whole number >= 1, of seeds for each point', whole },
  sample = { 'a whole number >= 1, of points to draw', whole },
  zip = { 'two or more keys, as in zip=a,b', function(text) return #(words(text) or {}) >= 2 and words(text) end },
  metrics = { 'names of metrics, as in metrics=loss,rot_r2', words },
  sweep_dir = { 'a folder', function(text) return text ~= '' and text end },
}
local flags = { ['-m'] = 'sweep', ['--multirun'] = 'sweep', ['--dry-run'] = 'dry_run', ['--fail-fast'] = 'fail_fast' }
local aliases = { ['hydra.sweep.dir'] = 'sweep_dir' }
local places = { run_dir = true, ['hydra.run.dir'] = true, resume = true } -- of one run

-- Whether arguments ask for a sweep.
function M.is_asked(arguments)
  for _, argument in ipairs(arguments) do
    if flags[argument] == 'sweep' then return true end
  end
  return false
end

-- The value of the sweep's own key in a text. Raises for one that it cannot have.
function M.value(key, text)
  local expected, read = unpack(M.keys[key])
  return read(text) or error(('%s must be %s, got %s'):format(key, expected, text), 0)
end

-- Parts arguments into the sweep's own options, the axes {key =, values = list or drawn, texts = as
-- arguments where those differ} and what every job gets.
function M.read(arguments)
  local plan = { axes = {}, fixed = {} }
  for _, argument in ipairs(arguments) do
    local key, text = argument:match('^%+*([%w_][%w_.@/-]*)%s*=(.*)$')
    key = aliases[key] or key
    local own = M.keys[key or '']
    local list = key and not own and values.read(key, text)
    if places[key] then error(('%s: it is for one run; sweep_dir=DIR says where a sweep lives, and goes on with it'):format(argument), 0) end
    if flags[argument] then
      plan[flags[argument]] = true
    elseif own then
      plan[key] = M.value(key, text)
    elseif list then
      plan.axes[#plan.axes + 1] = { key = key, prefix = argument:match('^%+*'), values = list }
    else
      plan.fixed[#plan.fixed + 1] = argument
      if key == 'seed' then plan.first_seed = tonumber(text) end
    end
  end
  return plan
end

local function axis_of(plan, key)
  local keys = {}
  for i, axis in ipairs(plan.axes) do
    if axis.key == key then return axis end
    keys[i] = axis.key
  end
  local near = nearest(key, keys)
  error(("zip: %s is not varied; %s"):format(key, near and ("did you mean '%s'?"):format(near) or 'zip names keys that have several values'), 0)
end

-- Axes that move together become one, whose values are lists of settings.
local function combined(plan)
  local out, zipped, first = {}, {}, nil
  for _, key in ipairs(plan.zip or {}) do
    local axis = axis_of(plan, key)
    if axis.values.draw then error(('zip: %s is drawn; only lists can be zipped'):format(key), 0) end
    first = first or axis
    if #axis.values ~= #first.values then
      error(('zip: %s has %d values and %s has %d; they must be equal in number'):format(first.key, #first.values, key, #axis.values), 0)
    end
    zipped[axis] = true
  end
  for _, axis in ipairs(plan.axes) do
    if not zipped[axis] then
      out[#out + 1] = { axis }
    elseif axis == first then
      out[#out + 1] = {}
      for _, key in ipairs(plan.zip) do table.insert(out[#out], axis_of(plan, key)) end
    end
  end
  return out
end

-- Adds value number i of a group of axes, or one drawn with u, to point.
local function set(point, group, i, u)
  for _, axis in ipairs(group) do
    local value = axis.values.draw and axis.values.draw(u) or axis.values[i]
    local text = axis.texts and axis.texts[i] or value
    point[#point + 1] = { key = axis.key, value = value, argument = ('%s%s=%s'):format(axis.prefix or '', axis.key, text) }
  end
end

local function copy(point) return { unpack(point) } end

local function product(groups)
  local points = { {} }
  for _, group in ipairs(groups) do
    if group[1].values.draw then error(('%s is drawn: say how many points, sample=N'):format(group[1].key), 0) end
    if #points * #group[1].values > MOST then error(('the sweep has more than %d points'):format(MOST), 0) end
    local longer = {}
    for _, point in ipairs(points) do
      for i = 1, #group[1].values do
        longer[#longer + 1] = copy(point)
        set(longer[#longer], group, i)
      end
    end
    points = longer
  end
  return points
end

-- The same for every call: a sweep that is taken up again has the points that it had.
local function drawn(groups, count)
  local draws, points = generator(0, 6), {}
  for i = 1, count do
    points[i] = {}
    for _, group in ipairs(groups) do
      local u = draws:uniform()
      set(points[i], group, math.floor(u * (#group[1].values)) + 1, u)
    end
  end
  return points
end

-- A folder's name that says what a point is, and differs from every other's.
local function name_of(point)
  local settings = {}
  for i, setting in ipairs(point) do settings[i] = ('%s=%s'):format(setting.key, setting.value) end
  local text, plain = table.concat(settings, ' '), table.concat(settings, '_')
  local name = plain:gsub('[^%w=._+-]', '-'):sub(1, 120)
  if name ~= plain then name = name .. '_' .. hash(text):sub(1, 6) end
  return name ~= '' and name or 'only', text
end

-- The jobs of a plan: list of {name = a folder's, text, point = list of {key, value}, arguments}. What was drawn twice is there once.
function M.jobs(plan)
  local seen = {}
  for _, axis in ipairs(plan.axes) do
    if seen[axis.key] then error(('%s is varied twice'):format(axis.key), 0) end
    seen[axis.key] = true
  end
  if plan.seeds and seen.seed then error('seeds=N and several values of seed: leave out one of them', 0) end
  local groups = combined(plan)
  local points = plan.sample and drawn(groups, plan.sample) or product(groups)
  if plan.seeds then
    local seeds = { values = {}, key = 'seed' }
    for i = 1, plan.seeds do seeds.values[i] = ('%.0f'):format((plan.first_seed or 0) + i - 1) end
    local all = {}
    for _, point in ipairs(points) do
      for i = 1, plan.seeds do
        all[#all + 1] = copy(point)
        set(all[#all], { seeds }, i)
      end
    end
    points = all
  end
  if #points > MOST then error(('the sweep has more than %d jobs'):format(MOST), 0) end
  local jobs, known = {}, {}
  for _, point in ipairs(points) do
    local name, text = name_of(point)
    local arguments = { unpack(plan.fixed) }
    for _, setting in ipairs(point) do arguments[#arguments + 1] = setting.argument end
    if not known[name] then jobs[#jobs + 1] = { name = name, text = text, point = point, arguments = arguments } end
    known[name] = true
  end
  return jobs
end

return M
