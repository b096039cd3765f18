-- Opens the files of a golden folder so that whatever they lack is named, and reads the noise that the folder states.
local lfs = require 'lfs'
local json = require 'tycho.io.json'
local npz = require 'tycho.io.npz'

local M = {}

local function strict(t, path, what)
  return setmetatable(t, { __index = function(_, key) error(("%s has no %s '%s'"):format(path, what, tostring(key)), 0) end })
end

-- The arrays of an .npz; rawget those that need not be there.
function M.arrays(path) return strict(npz.load(path), path, 'array') end

-- The objects of a .json, nested ones too; rawget keys that need not be there.
function M.json(path)
  local function name(value)
    if type(value) ~= 'table' or value == json.null then return value end
    for _, child in pairs(value) do name(child) end
    return value[1] == nil and strict(value, path, 'key') or value
  end
  local value = json.load(path)
  if type(value) ~= 'table' then error(('%s: expected an object'):format(path), 0) end
  return name(value)
end

function M.has(path) return lfs.attributes(path) ~= nil end

-- Noise of the reference by noise.json: ARCHIVE (without .npz) -> array -> {largest difference, the same relative, relative L2} of its
-- single precision from its double precision. Returns noise(archive, key, kind), kind 'l2' (default) or 'abs'; 0 where the folder says nothing.
function M.noise(dir)
  local path = dir .. '/noise.json'
  local recorded = M.has(path) and json.load(path) or {}
  return function(archive, key, kind)
    local entry = type(recorded[archive]) == 'table' and recorded[archive][key]
    return type(entry) == 'table' and tonumber(entry[kind == 'abs' and 1 or 3]) or 0
  end
end

return M
