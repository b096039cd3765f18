-- What every script does with its settings before it starts: reads them, goes back to those of the run that it resumes, refuses what this
-- build cannot do, and sets the threads.
local lfs = require 'lfs'
local tycho = require 'tycho'
local config_file = require 'tycho.config'
local run_directory = require 'tycho.train.run'

local M = {}

local function check(config)
  if config.device ~= 'cpu' and config.device ~= 'auto' then
    error(('device=%s: this build computes on the CPU only; expected cpu or auto'):format(tostring(config.device)), 0)
  end
  local cores = tycho.threads()
  if config.threads < 0 or config.threads > cores or config.threads ~= math.floor(config.threads) then
    error(('threads=%s: expected 1 to %d, or 0 for all of them'):format(tostring(config.threads), cores), 0)
  end
  if config.threads > 0 then tycho.set_threads(config.threads) end
  tycho.set_winograd(config.winograd)
end

-- The settings of a script: YAML file, then the arguments. With resume=DIR or resume=auto they begin from that run's own settings, so that the
-- run goes on as it began; config.resume is then the run's folder, nil otherwise.
function M.load(file, arguments)
  local config = config_file.load(('%s/experiments/%s'):format(tycho.lib.root, file), arguments)
  local resume = config.resume
  if resume == 'auto' then resume = run_directory.newest(config.out, config.name, 'checkpoint.safetensors') end
  if resume and resume ~= 'none' then
    if lfs.attributes(resume .. '/checkpoint.safetensors', 'mode') ~= 'file' then
      error(('resume=%s: expected a run folder with checkpoint.safetensors in it'):format(resume), 0)
    end
    config = config_file.load(resume .. '/config.yml', arguments)
    config.resume = resume
  else
    config.resume = nil
  end
  check(config)
  return config
end

return M
