-- takes over edited modules, or the named one, without losing what is alive
local reload = require 'tycho.repl.reload'

return function(session, name)
  if name ~= '' then
    local module = reload.module(name)
    session:print(('reloaded %s: %d functions'):format(module, reload.reload(module)))
    return true
  end
  local said, all_well = reload.reload_changed()
  if #said == 0 then said = { 'no module was edited since it was loaded' } end
  session:print(table.concat(said, '\n'), not all_well and 'error' or nil)
  return all_well
end
