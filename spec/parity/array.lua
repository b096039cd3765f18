-- One recorded array of a folder: its own .npy file, or an entry of the folder's arrays.npz (the compact copy).
local lfs = require 'lfs'
local npy = require 'tycho.io.npy'
local npz = require 'tycho.io.npz'

local packs = {} -- folder -> table of arrays, or false

-- The tensor recorded as dir/name.npy, or nil.
return function(dir, name)
  local path = ('%s/%s.npy'):format(dir, name)
  if lfs.attributes(path) then return npy.load(path) end
  if packs[dir] == nil then
    local pack = dir .. '/arrays.npz'
    packs[dir] = lfs.attributes(pack) and npz.load(pack) or false
  end
  return packs[dir] and packs[dir][name] or nil
end
