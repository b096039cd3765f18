-- The memory of tensors. A storage is a Lua object that owns one C block. LuaJIT's collector does not see C bytes and a finalizer per tensor
-- costs more than a small op, so storages are listed in a registry with weak references and dead ones are swept
--   (a) at the end of tycho.scope, (b) when live bytes have grown by half, (c) before the byte limit or a failed allocation.
local ffi = require 'ffi'
local lib = require 'tycho.lib'
local M = {}
local check_interrupt = lib.check_interrupt

local Storage = {}
Storage.__index = Storage

local registry = setmetatable({}, { __mode = 'v' }) -- slot -> storage, weak
-- slot -> C block, bytes, library that frees it, device; strong, so that a dead storage's block is found
local blocks, sizes, owners, homes = {}, {}, {}, {}
local slots, free_slots, slot_count = {}, 0, 0
local GROWTH = 256 * 2^20
-- The heap is small and the tape's garbage short-lived: at the default pause the collector marks all of it every thousand small ops.
collectgarbage('setpause', 400)

-- Bytes that the system can give without ending a process for them: its estimate, but for a twentieth.
function M.available()
  local file = io.open '/proc/meminfo'
  local kilobytes = file and file:read('*a'):match 'MemAvailable:%s*(%d+)'
  if file then file:close() end
  return kilobytes and math.floor(kilobytes * 1024 * 0.95) or lib.unlimited
end
lib.devices.cpu.limit, lib.devices.cpu.has_own_limit = M.available(), true

-- Storages made inside scopes, in order; scope number d holds those after starts[d].
local made, made_count, starts, depth = {}, 0, {}, 0

local function release(slot)
  owners[slot].ty_free(blocks[slot], sizes[slot])
  homes[slot].live = homes[slot].live - sizes[slot]
  blocks[slot], owners[slot], homes[slot], sizes[slot], registry[slot] = false, false, false, 0, nil
  free_slots = free_slots + 1
  slots[free_slots] = slot
end

-- Collects garbage and frees the blocks of dead storages.
function M.collect()
  collectgarbage()
  collectgarbage()
  for slot = 1, slot_count do
    if blocks[slot] and registry[slot] == nil then release(slot) end
  end
  for _, device in pairs(lib.devices) do device.swept = device.live end
end

-- Gives cached blocks back to the system.
function M.clear_cache()
  for _, device in pairs(lib.devices) do
    device.float.ty_cache_clear()
    if rawget(device, 'double') then device.double.ty_cache_clear() end
  end
end

local function opened(name)
  local device = lib.devices[name or 'cpu']
  if not device then lib.raise(('memory: no tensor was ever on %s'):format(tostring(name))) end
  return device
end

-- live, peak (since the last reset) and cached bytes of a device's float library, and the limit. name: default 'cpu'.
function M.memory(name)
  local device, n = opened(name), ffi.new('int64_t[3]')
  device.float.ty_memory(n, n + 1, n + 2)
  return { live = tonumber(n[0]), peak = tonumber(n[1]), cached = tonumber(n[2]), limit = device.limit, registered = device.live }
end

-- A device's tensors may hold this many bytes at most; default: what there is, measured anew where it seems to end.
function M.set_memory_limit(bytes, name)
  if type(bytes) ~= 'number' or not (bytes >= 0) then lib.raise(('set_memory_limit: expected a number of bytes, got %s'):format(tostring(bytes))) end
  local device = opened(name)
  device.limit, device.has_own_limit = bytes, false
end

-- A block, or NULL, once all garbage is collected.
local function collected(bytes, library, device)
  M.collect()
  if device.has_own_limit then
    M.clear_cache()
    device.limit = device.live + M.available()
  end
  if device.live + bytes > device.limit then return nil end
  local block = library.ty_alloc(bytes)
  if block ~= nil then return block end
  M.clear_cache()
  return library.ty_alloc(bytes)
end

-- Set where errors are shown, or false: lets go of tensors that are held only to be looked at. Returns whether there was anything of the kind.
M.let_go = false

local function reclaim(bytes, library, device)
  local block = collected(bytes, library, device)
  if block == nil and M.let_go and M.let_go() then block = collected(bytes, library, device) end
  if block ~= nil then return block end
  if device.name ~= 'cpu' and not lib.capturing then lib.check(library.ty_sync(), library) end -- a failure of earlier work looks the same
  local limit = device.limit < lib.unlimited and (', limit %.1f MB'):format(device.limit / 1e6) or ''
  lib.raise(('out of memory on %s: asked for %.1f MB with %.1f MB live, %.1f MB cached%s; use a smaller batch or model, or %s')
    :format(device.name, bytes / 1e6, device.live / 1e6, M.memory(device.name).cached / 1e6, limit,
      lib.capturing and 'go without graphs (capture=false in a training), which have memory of their own' or 'tycho.scope'))
end

local function take_slot(block, bytes, owner, device)
  local slot
  if free_slots > 0 then
    slot = slots[free_slots]
    free_slots = free_slots - 1
  else
    slot = slot_count + 1
    slot_count = slot
  end
  local s = setmetatable({ slot = slot, block = block, version = 0, pins = nil }, Storage)
  registry[slot], blocks[slot], sizes[slot], owners[slot], homes[slot] = s, block, bytes, owner, device
  return s
end

-- Set by the prompt: a function that says where a large storage is made, or false.
M.find_site = false
local LARGE = 2^16

-- A new storage of bytes, uninitialised, in the memory of a device (an entry of lib.devices) for tensors of a dtype (an entry of dtype.lua).
function M.new(bytes, dtype, device)
  check_interrupt()
  local block
  local library, live = device[dtype.library], device.live
  if live - device.swept > GROWTH and live > 1.5 * device.swept then M.collect() end
  if device.live + bytes <= device.limit then block = library.ty_alloc(bytes) end
  if block == nil then block = reclaim(bytes, library, device) end
  local s = take_slot(block, bytes, library, device)
  device.live = device.live + bytes
  if bytes >= LARGE and M.find_site then s.site = M.find_site() end
  if depth > 0 then
    made_count = made_count + 1
    made[made_count] = s
  end
  return s
end

-- A storage over memory that exists already, such as a mapped file: release() is called once, when the storage dies. Its bytes do not count
-- as live. device [opt]: an entry of lib.devices, the CPU's unless given.
function M.adopt(block, release_block, device)
  return take_slot(block, 0, { ty_free = release_block }, device or lib.devices.cpu)
end

-- Frees now; tensors that still view this storage raise when used.
function Storage:free()
  if self.block then
    self.block = nil
    release(self.slot)
  end
end

-- All live storages: list of {storage =, bytes =}, adopted memory left out.
function M.list()
  local list = {}
  for slot = 1, slot_count do
    if blocks[slot] and registry[slot] and sizes[slot] > 0 then list[#list + 1] = { storage = registry[slot], bytes = sizes[slot] } end
  end
  return list
end

-- storage -> version of all live storages, adopted memory too.
function M.versions()
  local versions = {}
  for slot = 1, slot_count do
    local s = blocks[slot] and registry[slot]
    if s then versions[s] = s.version end
  end
  return versions
end

-- The device of a live storage.
function M.home(s) return homes[s.slot] end

-- Bytes of a live storage; 0 for adopted memory.
function M.bytes(s) return sizes[s.slot] end

-- ---- scopes ----

-- Begins a scope; its level is handed to M.leave or M.unwind.
function M.enter()
  depth = depth + 1
  starts[depth] = made_count
  return depth
end

-- The innermost scope's level; 0 outside of all.
function M.scope_level() return depth end

-- Ends the innermost scope: storages with pins move to the enclosing scope, and so do those in holders [opt], a table of storages that the tape
-- holds; all others that are not lasting are freed. visit(storage) [opt] is called for each with pins.
function M.leave(level, visit, holders)
  local start = starts[level]
  local count = start
  depth = level - 1
  for i = start + 1, made_count do
    local s = made[i]
    local held = holders and not s.pins and holders[s]
    if s.pins or held then
      if visit and not held then visit(s) end
      if held or s.holders then s.holders = held or nil end
      if depth > 0 then
        count = count + 1
        made[count] = s
      end
    elseif not s.lasting then
      s:free()
    end
  end
  for i = count + 1, made_count do made[i] = nil end
  made_count = count
end

-- Abandons the scopes of this level and deeper after an error; the collector takes what they made.
function M.unwind(level)
  if depth < level then return end
  for i = starts[level] + 1, made_count do made[i] = nil end
  made_count, depth = starts[level], level - 1
end

return M
