-- Options that a function takes as its last argument, in a table.
local lib = require 'tycho.lib'
local nearest = require 'tycho.nearest'

-- options, or an empty table for nil. Raises for what is no table and for a key that is none of known's. owner: whose options they are.
return function(owner, options, known)
  if options == nil then return {} end
  if type(options) ~= 'table' then lib.raise(('%s: expected a table of options, got %s'):format(owner, type(options))) end
  for key in pairs(options) do
    if known[key] == nil then
      local names = {}
      for name in pairs(known) do names[#names + 1] = name end
      table.sort(names)
      local near = nearest(tostring(key), names)
      lib.raise(("%s: unknown option '%s'; %s"):format(owner, tostring(key), near and ("did you mean '%s'?"):format(near)
        or 'expected one of ' .. table.concat(names, ', ')))
    end
  end
  return options
end
