-- Specs for each device: on_each_device('training on', body) makes a block 'training on cuda-host' and one for cuda, each with what body(name of the
-- device) declares; where a device cannot be used, with one spec, pending for the reason.
local busted = require 'busted'
local device = require 'tycho.device'

return function(label, body)
  for _, name in ipairs { 'cuda-host', 'cuda' } do
    local problem = device.problem(name)
    busted.describe(label .. ' ' .. name, function()
      if not problem then return body(name) end
      -- busted gives its global pending to spec files only.
      busted.it('agrees with the CPU', setfenv(function() pending(problem) end, getfenv(body)))
    end)
  end
end
