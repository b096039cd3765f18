-- Convolutions, and which of cuDNN's engines does one on a device. It is the one that cuDNN's heuristics name first, unless
-- device.set_cudnn_benchmark(name, true) was called: then the first few are timed when a shape is met, and the fastest does it from then on. Another
-- engine sums in another order, so that choices are kept (tycho.cache) for the same device and versions: later processes repeat the numbers of the
-- first.
local ffi = require 'ffi'
local cache = require 'tycho.cache'
local device = require 'tycho.device'
local hash = require 'tycho.hash'
local json = require 'tycho.io.json'
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'

local M = {}

local MOST, WORKSPACE, ROUNDS, CALLS = 5, 300e6, 3, 4
local GAIN = 0.97 -- of the first engine's time: less is not worth another order of summation

-- By direction (as in ty_use_conv_engine, y, x, w and the rest too).
local calls = {
  [0] = function(y, x, w, stride, padding, grad) return y.lib.ty_conv2d(y.c, x.c, w.c, stride, padding, grad and 1 or 0) end,
  function(y, x, w, stride, padding) return y.lib.ty_conv2d_back_input(x.c, y.c, w.c, stride, padding) end,
  function(y, x, w, stride, padding) return y.lib.ty_conv2d_back_weight(w.c, y.c, x.c, stride, padding) end,
}

-- Does a convolution by the engine in use. grad: forward, whether y will have a gradient. Returns the library's status.
function M.run(direction, ...) return calls[direction](...) end

-- From now on such convolutions are done by this engine, if it is there. Returns its bytes of workspace, or -1 where it is not.
function M.use(engine, direction, y, x, w, stride, padding)
  local workspace = ffi.new 'int64_t[1]'
  lib.check(y.lib.ty_use_conv_engine(direction, y.c, x.c, w.c, stride, padding, engine, workspace), y.lib)
  return tonumber(workspace[0])
end

-- Seconds of each of some calls; infinite where one fails.
local function seconds_of_calls(count, direction, y, ...)
  local start = lib.cpu.ty_now()
  for _ = 1, count do
    if M.run(direction, y, ...) ~= 0 then return math.huge end
  end
  device.synchronize(y.device)
  return (lib.cpu.ty_now() - start) / count
end

-- The least over some rounds, of which one is enough for an engine that takes twice as long as the best of those before.
local function seconds_of_run(least, ...)
  local best = math.huge
  seconds_of_calls(1, ...) -- loads its kernels
  for _ = 1, ROUNDS do
    best = math.min(best, seconds_of_calls(CALLS, ...))
    if best > 2 * least then break end
  end
  return best
end

-- Seconds of the convolution by each of the first engines, in their order; infinite for one that fails or wants more memory than the first and than
-- 300 MB. The output is written each time. Empty where there is no choice. Leaves the last one in use.
function M.times(...)
  local times, limit, least = {}, WORKSPACE, math.huge
  for engine = 0, MOST - 1 do
    local workspace = M.use(engine, ...)
    if workspace < 0 then break end
    if engine == 0 then limit = math.max(limit, workspace) end
    times[engine + 1] = workspace > limit and math.huge or seconds_of_run(least, ...)
    least = math.min(least, times[engine + 1])
  end
  return times
end

-- The number, from 1, of the least of times; the first where they are equal.
function M.fastest(times)
  local best = 1
  for i, seconds in ipairs(times) do
    if seconds < times[best] then best = i end
  end
  return best
end

-- ---- choices that are kept ----

local kept = {} -- by device: path [opt], engines by convolution, and by convolution true once its engine is in use (in_use)

local function choices_of(name)
  if kept[name] then return kept[name] end
  local folder, text = cache(), device.describe(name)
  local found = { path = folder and ('%s/cudnn-%s.json'):format(folder, hash(text)), device = text, engines = {}, in_use = {} }
  local ok, old = pcall(function() return json.load(found.path) end)
  if ok and type(old) == 'table' and old.device == text and type(old.engines) == 'table' then found.engines = old.engines end
  kept[name] = found
  return found
end

local function keep(choices, key, engine)
  choices.engines[key] = engine
  if choices.lost then return end
  local ok, why = pcall(function()
    json.save(choices.path or error('there is no folder for it: set TYCHO_CACHE', 0), { device = choices.device, engines = choices.engines })
  end)
  if ok then return end
  choices.lost = true
  io.stderr:write(('cudnn_benchmark: choices of engines last as long as this process, and another may choose others: %s\n'):format(why))
end

-- Puts the engine of choice to use; does nothing unless choices were asked for. Within a captured step none can be timed, and what is not known stays
-- as it is.
function M.choose(direction, y, x, w, stride, padding)
  local on = lib.devices[y.device]
  if not on.cudnn_benchmark or y:numel() == 0 then return end
  local key = ('%s%s %d x%s w%s stride %d padding %d'):format(y.dtype, y.dtype == 'f32' and on.tf32 and ' tf32' or '', direction,
    tensor.shape_text(x), tensor.shape_text(w), stride, padding)
  local choices = choices_of(y.device)
  if choices.in_use[key] then return end
  local known = choices.engines[key]
  if type(known) ~= 'number' or M.use(known, direction, y, x, w, stride, padding) < 0 then
    if lib.capturing then return end
    local times = M.times(direction, y, x, w, stride, padding)
    if #times == 0 then return end
    local best = M.fastest(times)
    if times[best] >= GAIN * times[1] then best = 1 end
    M.use(best - 1, direction, y, x, w, stride, padding)
    keep(choices, key, best - 1)
  end
  choices.in_use[key] = true
end

-- Does a convolution, by the engine of choice; arguments as run's.
function M.convolve(direction, y, ...)
  M.choose(direction, y, ...)
  lib.check(M.run(direction, y, ...), y.lib)
end

return M
