-- Raises that there is no thing of this name, and what there is. what: 'policy', ...; known: a table with the names as keys; level: as error has it
-- in the caller (default: no line).
local nearest = require 'tycho.nearest'

return function(what, name, known, level)
  local names = {}
  for each in pairs(known) do names[#names + 1] = each end
  table.sort(names)
  local near = nearest(tostring(name), names)
  error(("there is no %s '%s'; %s"):format(what, tostring(name), near and ("did you mean '%s'?"):format(near)
    or 'there are ' .. table.concat(names, ', ')), level and level + 1 or 0)
end
