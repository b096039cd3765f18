-- NumPy's .npz: a zip archive of .npy arrays.
local file = require 'tycho.io.file'
local zip = require 'tycho.io.zip'
local npy = require 'tycho.io.npy'
local python = require 'tycho.io.python'

local M = {}

-- Table name -> tensor (or list of strings), all read.
function M.load(path)
  return file.with_mapping(path, function(bytes, size, mapping)
    local out = {}
    for _, entry in ipairs(zip.open(bytes, size, path, mapping)) do
      local name = entry.name:match('^(.*)%.npy$')
      if not name then file.fail(entry.where, 'an .npz holds only .npy arrays') end
      out[name] = zip.read(entry, function(data, source) return npy.parse(data, entry.size, entry.where, source) end)
    end
    return out
  end)
end

-- Writes tensors and lists of strings by name (a table, Dict or state dict), in the order of the names. options.compress = true deflates. Data that
-- is not deflated is aligned, so that it can be used where it lies.
function M.save(path, arrays, options)
  local names, by_name, how = {}, {}, { compress = options and options.compress, align = 64 }
  for name, x in python.pairs(python.named(arrays)) do names[#names + 1], by_name[name] = name, x end
  table.sort(names)
  zip.write(path, function(archive)
    for _, name in ipairs(names) do archive:add(name .. '.npy', npy.pieces(by_name[name], path .. ': ' .. name), how) end
  end)
end

return M
