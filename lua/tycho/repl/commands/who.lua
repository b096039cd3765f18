-- the variables of this session
local trace = require 'tycho.repl.trace'

return function(session)
  local variables, names, width = session:variables(), {}, 0
  for name in pairs(variables) do
    names[#names + 1] = name
    width = math.max(width, #name)
  end
  if #names == 0 then return session:print 'no variables yet' end
  table.sort(names)
  for i, name in ipairs(names) do names[i] = ('%-' .. width .. 's  %s'):format(name, trace.brief(variables[name])) end
  session:print(table.concat(names, '\n'))
end
