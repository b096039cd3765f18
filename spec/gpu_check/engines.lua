-- What a choice among cuDNN's engines (lua/tycho/conv_engines.lua) is worth in the published step: ./tycho spec/gpu_check/engines.lua DEVICE.
-- One row a convolution, direction and precision: milliseconds by the engine that the heuristics name first and by the fastest, that one's number,
-- and how far its results are from the first's (relative L2); and a row for all of a step.
local tycho = require 'tycho'
local convolutions = require 'spec.gpu_check.convolutions'
local engines = require 'tycho.conv_engines'
local row = require 'spec.gpu_check.row'

local where = arg[1]
local BATCH, SHRINK = where == 'cuda' and 1024 or 2, where == 'cuda' and 1 or 16 -- of channels
local tolerance = { f16 = 2e-3, bf16 = 1e-2 } -- results are rounded to 11 and 8 bits
local generator = tycho.generator(1)
local directions = { [0] = 'forward', 'to images', 'to weights' }

local function random(...)
  local shape = { ... }
  return tycho.empty_image(shape):copy_(generator:normal_tensor(shape))
end

local function norm(t) return math.sqrt((t * t):sum():item()) end

local first_of_all, fastest_of_all = { f16 = 0, bf16 = 0 }, { f16 = 0, bf16 = 0 }

-- Each direction writes over the tensor of its number: the next reads it.
local function measure(mode, direction, y, x, w, s)
  local inputs, outputs, kernel, stride, side, count = unpack(s)
  local result, padding = ({ [0] = y, x, w })[direction], (kernel - 1) / 2
  local times = engines.times(direction, y, x, w, stride, padding)
  local fastest = engines.fastest(times)
  local function result_of(engine)
    engines.use(engine, direction, y, x, w, stride, padding)
    tycho.lib.check(engines.run(direction, y, x, w, stride, padding), x.lib)
    return result:to 'f32'
  end
  local expected = result_of(0)
  local distance = norm(result_of(fastest - 1) - expected) / norm(expected)
  local what = ('%dx%d, %d to %d channels at %dx%d, stride %d, %s'):format(kernel, kernel, inputs, outputs, side, side, stride, directions[direction])
  row { what = what, mode = mode, first = times[1] * 1e3, fastest = times[fastest] * 1e3, engine = fastest - 1, engines = #times, distance = distance,
    ok = distance <= tolerance[mode] }
  first_of_all[mode] = first_of_all[mode] + count * times[1]
  fastest_of_all[mode] = fastest_of_all[mode] + count * times[fastest]
end

for _, s in ipairs(convolutions) do
  local inputs, outputs, kernel, stride, side = unpack(s)
  inputs, outputs = inputs == 3 and 3 or inputs / SHRINK, outputs / SHRINK
  local images, weights = random(BATCH, inputs, side, side), random(outputs, inputs, kernel, kernel) * (inputs * kernel ^ 2) ^ -0.5
  for _, mode in ipairs { 'f16', 'bf16' } do
    local x, w = images:to(where):to(mode), weights:to(where):to(mode)
    local y = tycho.empty_image({ BATCH, outputs, side / stride, side / stride }, mode, where)
    for direction = 0, 2 do
      -- Sums over all pixels of all images are to be numbers that 16 bits hold.
      if direction == 2 then y:copy_(tycho.scope(function() return y * (BATCH * (side / stride) ^ 2) ^ -0.5 end)) end
      if not (inputs == 3 and direction == 1) then tycho.scope(measure, mode, direction, y, x, w, s) end
    end
  end
end
for mode, seconds in pairs(first_of_all) do
  row { what = 'all convolutions of a step', mode = mode, first = seconds * 1e3, fastest = fastest_of_all[mode] * 1e3 }
end
