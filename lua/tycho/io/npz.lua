-- NumPy's .npz: a zip archive of .npy arrays.
local ffi = require 'ffi'
local file = require 'tycho.io.file'
local zip = require 'tycho.io.zip'
local npy = require 'tycho.io.npy'

local M = {}

-- Table name -> tensor (or list of strings), all read.
function M.load(path)
  return file.with_mapping(path, function(bytes, size)
    local out = {}
    for _, entry in ipairs(zip.open(bytes, size, path)) do
      local name = entry.name:match('^(.*)%.npy$')
      if not name then file.fail(entry.where, 'an .npz holds only .npy arrays') end
      out[name] = zip.read(entry, function(data) return npy.parse(data, entry.size, entry.where) end)
    end
    return out
  end)
end

-- Writes a table name -> tensor, in the order of the names. options.compress = true deflates.
function M.save(path, arrays, options)
  local names = {}
  for name in pairs(arrays) do names[#names + 1] = name end
  table.sort(names)
  zip.write(path, function(archive)
    for _, name in ipairs(names) do
      local text = npy.encode(arrays[name])
      archive:add(name .. '.npy', ffi.cast('const uint8_t *', text), #text, options)
    end
  end)
end

return M
