-- What the published training step asks of a device stays within the plan: memory, and how many pieces of work are sent.
local device = require 'tycho.device'
local shell = require 'spec.shell'

describe('the published step in mixed precision', function()
  local problem = device.problem 'cuda-host'
  if problem then
    it('is weighed', function() pending(problem) end)
    return
  end
  -- Gigabytes without the images and the libraries.
  local function assert_within(how, most_tensors, most_held, most_sent)
    local said = shell('TYCHO_HOST_DRY=1 ./tycho spec/gpu_check/weigh.lua ' .. how)
    local tensors, held, sent = said:match '^(%d+) (%d+) (%d+)\n$'
    assert(tensors, said)
    assert.is_true(tonumber(tensors) / 1e9 < most_tensors, tensors)
    assert.is_true(tonumber(held) / 1e9 < most_held, held)
    assert.is_true(tonumber(sent) < most_sent, sent)
  end

  it('keeps within its memory', function() assert_within('eager', 5.8, 6.3, 680) end)
  it('is sent as one graph and what it reads', function() assert_within('captured', 5.8, 6.3, 20) end)
end)
