-- Takes all memory that a device of the host build has left, and from then on it gets no more: full_memory(name) returns a function that ends this.
local lib = require 'tycho.lib'
local setenv = require 'spec.setenv'

return function(name)
  setenv('TYCHO_HOST_MEMORY', '1')
  local library, taken, bytes = lib.devices[name].float, {}, 2^30
  while bytes >= 512 do
    local block = library.ty_alloc(bytes)
    if block == nil then bytes = bytes / 2 else taken[#taken + 1] = { block, bytes } end
  end
  return function()
    setenv 'TYCHO_HOST_MEMORY'
    for _, entry in ipairs(taken) do library.ty_free(entry[1], entry[2]) end
  end
end
