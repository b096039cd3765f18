-- What the published training step asks of a device, by the host build: TYCHO_HOST_DRY=1 ./tycho spec/gpu_check/weigh.lua [captured]. Prints, without
-- the images: bytes of tensors at the peak, bytes held, and how many pieces of work a step sends (kernels, products, copies, launches of graphs).
local ffi = require 'ffi'
local tycho = require 'tycho'
local lib = require 'tycho.lib'
local published = require 'spec.gpu_check.published'

ffi.cdef 'int64_t host_work_count(void);'
local where, STEPS = 'cuda-host', 6
local step_of = published(where, false, 1)
local held = tycho.memory(where).live
local step = step_of.new_step('fp16', false, arg[1] == 'captured')
local library, sent = lib.devices[where].float, nil
for i = 1, STEPS do
  local before = library.host_work_count()
  step(i - 1)
  sent = tonumber(library.host_work_count() - before)
end
local now = tycho.memory(where)
print(('%d %d %d'):format(now.peak - held, now.live + now.cached - held, sent))
