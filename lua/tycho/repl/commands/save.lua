-- writes the lines that ran without an error as a script: :save FILE.lua
local lfs = require 'lfs'
local file = require 'tycho.io.file'

return function(session, path)
  if path == '' then error(':save needs a file name, as in :save idea.lua', 0) end
  if not path:match('%.lua$') then path = path .. '.lua' end
  if lfs.attributes(path) then error(('%s exists already; choose another name'):format(path), 0) end
  if #session.inputs == 0 then error('nothing has run yet', 0) end
  local lines = { "local tycho = require 'tycho'\nlocal plot = tycho.plot\nlocal hist, imshow, grid = plot.hist, plot.imshow, plot.grid\n" }
  for _, text in ipairs(session.inputs) do lines[#lines + 1] = text .. '\n' end
  file.write(path, table.concat(lines))
  session:print(('%d lines in %s'):format(#session.inputs, path))
end
