-- the API reference (reference.html) and type files for editors, made from the sources' comments: docs [FOLDER]
local file = require 'tycho.io.file'
local lib = require 'tycho.lib'

return function(arguments)
  if arguments[1] == '--help' or arguments[1] == '-h' then
    return print('usage: ./tycho docs [FOLDER]      FOLDER/reference.html and FOLDER/types/tycho.lua; default build/docs, where .luarc.json looks')
  end
  if arguments[2] or (arguments[1] or ''):match '^%-' then error('docs takes one argument, a folder; ./tycho docs --help', 0) end
  local folder = arguments[1] or lib.root .. '/build/docs'
  file.make_folders(folder .. '/types')
  for name, text in pairs { ['reference.html'] = require('tycho.docs.reference').text(), ['types/tycho.lua'] = require('tycho.docs.types').text() } do
    file.write(folder .. '/' .. name, text)
  end
  print(folder .. '/reference.html')
  print(folder .. '/types/tycho.lua')
end
