-- takes over edited modules, or the named one, without losing what is alive
-- A function takes the place of the old one of the same name in the module. What stays as it is: closures that the module's functions made
-- before, local tables and numbers that only old functions hold, names that the new text no longer has, and tycho.lib, which owns all memory.
-- A script is no module: run it again. C needs make and a new start.
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
