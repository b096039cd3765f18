-- reloads edited modules by itself, before every line and while the prompt waits; once more: no longer
local reload = require 'tycho.repl.reload'

return function(session)
  session.is_watching = not session.is_watching
  if not session.is_watching then
    session.before, session.idle = nil, nil
    session:print 'edited modules wait for :reload again'
    return
  end
  local reported -- a file that does not compile is complained about once
  local function look(show)
    local said, all_well = reload.reload_changed()
    local text = table.concat(said, '\n')
    if text == '' or text == reported then return end
    reported = not all_well and text or nil
    show(function() session:print(text, not all_well and 'error' or nil) end)
  end
  function session.before() look(function(print_it) print_it() end) end
  session.idle = look
  session:print 'edited modules are reloaded as they are saved; :watch once more ends it'
end
