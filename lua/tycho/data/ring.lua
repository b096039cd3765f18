-- A ring of slots through which rows of bytes reach a device while it works: they are written into pinned memory of the host (by the threads of
-- loader.lua), and copied beside the device's work, which waits for them on the device. Knows no data set.
local ffi = require 'ffi'
local device = require 'tycho.device'
local lib = require 'tycho.lib'
local storages = require 'tycho.storage'
local tensor = require 'tycho.tensor'

local Ring = {}
Ring.__index = Ring

local SLOTS = 3 -- one on the way, one on the device, one that is written

-- The first count rows of the next slot in the host's memory, to write; those of `SLOTS` calls ago are lost.
function Ring:fill(count)
  local pointers = ffi.new 'void *[2]'
  self.slot, self.count = (self.slot + 1) % SLOTS, count
  lib.check(self.library.ty_ring_fill(self.handle, self.slot, pointers, pointers + 1), self.library)
  self.block = pointers[1]
  return self:view(pointers[0], lib.devices.cpu)
end

-- What was written, on the device. To be read until Ring:release.
function Ring:send()
  lib.check(self.library.ty_ring_send(self.handle, self.slot, self.count * self.bytes), self.library)
  return self:view(self.block, lib.devices[self.device])
end

-- All that reads what was sent has been called.
function Ring:release() lib.check(self.library.ty_ring_release(self.handle, self.slot), self.library) end

-- A tensor over a slot's memory; it keeps the ring, and whoever still writes keeps it (loader.lua).
function Ring:view(block, where)
  local storage = storages.adopt(block, function() end, where)
  storage.ring = self
  return tensor.from_storage(storage, 0, { self.count, unpack(self.shape) }, 'u8')
end

-- A ring to device `name` of slots of so many uint8 rows of a shape.
return function(name, rows, shape)
  local library, bytes = device.open(name).float, 1
  for _, size in ipairs(shape) do bytes = bytes * size end
  local handle = library.ty_ring_open(rows * bytes, SLOTS)
  if handle == nil then
    storages.collect() -- what nobody uses any more may do
    handle = library.ty_ring_open(rows * bytes, SLOTS)
  end
  if handle == nil then lib.raise(ffi.string(library.ty_error())) end
  return setmetatable({ handle = ffi.gc(handle, library.ty_ring_close), library = library, device = name, rows = rows, shape = shape, bytes = bytes,
    slot = 0 }, Ring)
end
