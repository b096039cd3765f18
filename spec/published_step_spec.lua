-- What the published training step asks of a device, by the host build, which here counts work and does none: memory, and how many pieces of work
-- are sent to it.
local device = require 'tycho.device'
local lib = require 'tycho.lib'

local PROGRAM = [[
local ffi = require 'ffi'
local tycho = require 'tycho'
ffi.cdef 'int64_t host_work_count(void);'
local library = require('tycho.lib').load('libtycho_cuda_host', 'cuda-host')
local where, captured = 'cuda-host', arg[1] == 'captured'
local published = require 'spec.gpu_check.published'(where, false, 1)
local held = tycho.memory(where).live
local step = published.new_step('fp16', false, captured)
local sent
for i = 0, 5 do
  local before = library.host_work_count()
  step(i)
  sent = tonumber(library.host_work_count() - before)
end
local now = tycho.memory(where)
print(('%d %d %d'):format(now.peak - held, now.live + now.cached - held, sent))
]]

describe('the published step in mixed precision', function()
  local problem = device.problem 'cuda-host'
  if problem then
    it('is weighed', function() pending(problem) end)
    return
  end
  local function weighed(how)
    local path = os.tmpname()
    local file = assert(io.open(path, 'w'))
    file:write(PROGRAM)
    file:close()
    local pipe = io.popen(('cd %s && TYCHO_HOST_DRY=1 ./tycho %s %s 2>&1'):format(lib.root, path, how))
    local said = pipe:read '*a'
    pipe:close()
    os.remove(path)
    local peak, taken, sent = said:match '^(%d+) (%d+) (%d+)\n$'
    assert(peak, said)
    return tonumber(peak) / 1e9, tonumber(taken) / 1e9, tonumber(sent)
  end

  it('keeps within the memory that the plan gives it, without the images and the libraries', function()
    local peak, taken, sent = weighed 'eager'
    assert.is_true(peak < 6.3, peak)
    assert.is_true(taken < 7, taken)
    assert.is_true(sent < 750, sent)
  end)
  it('is sent as one graph and what it reads', function()
    local peak, taken, sent = weighed 'captured'
    assert.is_true(peak < 6.3, peak)
    assert.is_true(taken < 7.5, taken)
    assert.is_true(sent < 20, sent)
  end)
end)
