-- ??name: the source of a function, an op or a layer
local help = require 'tycho.help'

return function(session, name)
  local entry, near = help.find(session.environment, name)
  local lines = entry and help.source(entry)
  if not lines or #lines == 0 then
    error(("there is no source of '%s'%s"):format(name, near and ("; did you mean ??%s?"):format(near) or ''), 0)
  end
  session:print(('-- %s%s\n%s'):format(help.display(entry.path), entry.line and ':' .. entry.line or '', table.concat(lines, '\n')))
end
