-- Files that specs make and read, by a road of their own.
local busted = require 'busted'
local lfs = require 'lfs'

local M = {}

-- The path of a new folder, which goes with all in it when the specs of the calling file or describe have run; an it cannot make one.
function M.folder()
  local path = os.tmpname()
  os.remove(path)
  assert(lfs.mkdir(path))
  busted.teardown(function() os.execute('rm -rf ' .. path) end)
  return path
end

-- All bytes of a file.
function M.read(path)
  local file = assert(io.open(path, 'rb'))
  local text = file:read '*a'
  file:close()
  return text
end

-- Makes a file of a text; returns its path.
function M.write(path, text)
  local file = assert(io.open(path, 'wb'))
  file:write(text)
  file:close()
  return path
end

-- write and read for names in a folder.
function M.inside(folder)
  return function(name, text) return M.write(folder .. '/' .. name, text) end, function(name) return M.read(folder .. '/' .. name) end
end

return M
