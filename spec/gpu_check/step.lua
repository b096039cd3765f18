-- Times the published training step on a device, with the images in its memory: ./tycho spec/gpu_check/step.lua DEVICE. One row a mode: images a
-- second, milliseconds a step and those of them in which the host was busy (medians over rounds), without the images gigabytes of tensors at the
-- peak and of memory taken from the device for tensors, and gigabytes that the device has given to all of the process (context, libraries, images).
-- Weights must have moved and be finite, few steps may be skipped for overflows, and the captured step must leave the same weights, bit for bit.
local ffi = require 'ffi'
local tycho = require 'tycho'
local device = require 'tycho.device'
local hash = require 'tycho.hash'
local published = require 'spec.gpu_check.published'
local row = require 'spec.gpu_check.row'
local timing = require 'spec.gpu_check.timing'

local where = arg[1]
local real = where == 'cuda'
local WARM = 6 -- steps: each environment's is captured at its second
local SKIPPED = 10 -- steps at most, in which the loss scale finds its place
local step_of = published(where, not real)
local images = tycho.memory(where).live

-- A word for the weights of a model, and whether all are finite.
local function word_of(model)
  local words, total = {}, 0
  for _, p in ipairs(model:parameters()) do
    local values = p:detach():cpu()
    words[#words + 1], total = hash(values), total + values:sum():item()
  end
  return hash(table.concat(words)), total - total == 0
end

-- The device's bytes that are not free, or nil where there is none.
local function device_bytes()
  if not real then return nil end
  ffi.cdef 'int cuMemGetInfo_v2(size_t *free, size_t *total);'
  local bytes = ffi.new 'size_t[2]'
  local status = ffi.load('libcuda.so.1').cuMemGetInfo_v2(bytes, bytes + 1)
  return status == 0 and tonumber(bytes[1] - bytes[0]) or nil
end

local function measure(mode, amp, tf32, captured, rounds, steps)
  jit.flush() -- compiled code may hold what was measured before
  tycho.collect()
  require('tycho.storage').clear_cache()
  local library = tycho.lib.devices[where].float
  library.ty_memory_reset_peak()
  local step, parts = step_of.new_step(amp, tf32, captured)
  local model, scaler = parts.modules.model, parts.optimizers.scaler
  local before = word_of(model)
  local count = 0
  local function next_step()
    step(count)
    count = count + 1
  end
  timing(where, 1, WARM, next_step)
  local median, slowest, busy = timing(where, real and rounds or 1, real and steps or 1, next_step)
  local memory, taken = tycho.memory(where), device_bytes()
  local after, is_finite = word_of(model)
  local skipped = scaler and scaler:skipped() or 0
  local found = { mode = mode, milliseconds = median * 1e3, slowest = slowest * 1e3, host_milliseconds = busy * 1e3,
    images_per_second = 2 * step_of.pairs / median, peak_gigabytes = (memory.peak - images) / 1e9,
    held_gigabytes = (memory.live + memory.cached - images) / 1e9, device_gigabytes = taken and taken / 1e9, skipped = scaler and skipped,
    ok = is_finite and after ~= before and skipped <= SKIPPED }
  return found, after
end

-- Those that the targets are about first; what cudnn_benchmark chooses for float16 stays for the process. float32 alone, whose weight gradients cuDNN
-- sums in few thread blocks, takes long, and not to the last percent.
for _, entry in ipairs { { 'fp16', 'fp16' }, { 'fp16, cudnn_benchmark', 'fp16', benchmark = true }, { 'bf16', 'bf16' },
  { 'tf32', 'off', tf32 = true }, { 'float32', 'off', rounds = 1, steps = 3 } } do
  local mode, amp = unpack(entry)
  local rounds, steps = entry.rounds or 7, entry.steps or 10
  device.set_cudnn_benchmark(where, entry.benchmark)
  local eager, weights = measure(mode, amp, entry.tf32, false, rounds, steps)
  row(eager)
  local captured, same = measure(mode .. ', captured', amp, entry.tf32, true, rounds, steps)
  captured.ok = captured.ok and weights == same
  row(captured)
end
