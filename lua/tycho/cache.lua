-- The folder in which is kept what is slow to find out, for later processes: TYCHO_CACHE, or else XDG_CACHE_HOME/tycho or ~/.cache/tycho.
-- cache() returns it, made where it was not, or nil when there is no such place; whether it can be written to shows when one writes.
local lfs = require 'lfs'

return function()
  local own, base, home = os.getenv 'TYCHO_CACHE', os.getenv 'XDG_CACHE_HOME', os.getenv 'HOME'
  local folder = own and own ~= '' and own or base and base ~= '' and base .. '/tycho' or home and home .. '/.cache/tycho'
  if not folder then return nil end
  for at in (folder .. '/'):gmatch '()/' do lfs.mkdir(folder:sub(1, at - 1)) end
  return folder
end
