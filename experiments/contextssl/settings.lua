-- What every script does with its settings before it starts: refuses what this build cannot do, and sets the threads.
local tycho = require 'tycho'

-- Raises one sentence for a device or a number of threads that this machine does not have.
return function(config)
  if config.device ~= 'cpu' and config.device ~= 'auto' then
    error(("device=%s: this build computes on the CPU only; expected cpu or auto"):format(tostring(config.device)), 0)
  end
  local cores = tycho.threads()
  if config.threads < 0 or config.threads > cores or config.threads ~= math.floor(config.threads) then
    error(('threads=%s: expected 1 to %d, or 0 for all of them'):format(tostring(config.threads), cores), 0)
  end
  if config.threads > 0 then tycho.set_threads(config.threads) end
end
