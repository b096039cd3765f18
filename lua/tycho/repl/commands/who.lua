-- the variables of this session
local trace = require 'tycho.repl.trace'

return function(session)
  local names, width = {}, 0
  for name in pairs(session.environment) do
    if type(name) == 'string' and name ~= '_' and name ~= 'Out' then
      names[#names + 1] = name
      width = math.max(width, #name)
    end
  end
  if #names == 0 then return session:print 'no variables yet' end
  table.sort(names)
  for i, name in ipairs(names) do names[i] = ('%-' .. width .. 's  %s'):format(name, trace.brief(rawget(session.environment, name))) end
  session:print(table.concat(names, '\n'))
end
