-- ?? words: all comments that hold the words
local comments = require 'tycho.help.comments'
local help = require 'tycho.help'

local SHOWN = 30

return function(session, words)
  if words == '' then error('?? needs a word to search for, as in ?? temperature', 0) end
  local found = help.search(words)
  if #found == 0 then error(("no comment holds '%s'"):format(words), 0) end
  local lines = {}
  for i, entry in ipairs(found) do
    if i > SHOWN then
      lines[#lines + 1] = ('... %d more; another word narrows it'):format(#found - SHOWN)
      break
    end
    lines[#lines + 1] = ('%s  %s'):format(entry.name, comments.summary(entry.text))
  end
  session:print(table.concat(lines, '\n'))
end
