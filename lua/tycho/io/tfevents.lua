-- TensorBoard's event files, scalars only: records framed with lengths and masked CRC-32C, each a protobuf message written by hand.
--   u64 length | u32 masked crc of the length | message | u32 masked crc of the message        (little-endian)
-- Event:   1 wall_time (double), 2 step (varint), 3 file_version (string), 5 summary (message), 7 session_log (message)
-- Summary: repeated 1 value (message): 1 tag (string), 2 simple_value (float)
local ffi = require 'ffi'
local bit = require 'bit'
local lfs = require 'lfs'
local file = require 'tycho.io.file'

local M = {}

local HEAD, TAIL = 12, 4 -- bytes of a record around its message

-- ---- checksums ----

local table_of_bytes = ffi.new('uint32_t[256]')
for i = 0, 255 do
  local c = i
  for _ = 1, 8 do c = bit.bxor(bit.rshift(c, 1), bit.band(c, 1) == 1 and 0x82F63B78 or 0) end -- Castagnoli's polynomial, reflected
  table_of_bytes[i] = c
end

-- CRC-32C of a string, 0 to 2^32 - 1.
function M.crc32c(text)
  local c = -1
  for i = 1, #text do c = bit.bxor(bit.rshift(c, 8), bit.tobit(table_of_bytes[bit.band(bit.bxor(c, text:byte(i)), 255)])) end
  return bit.bnot(c) % 2^32
end

local function masked(text) return (bit.ror(bit.tobit(M.crc32c(text)), 15) + 0xa282ead8) % 2^32 end

local function record(message)
  local length = file.put_u64(#message)
  return length .. file.put_u32(masked(length)) .. message .. file.put_u32(masked(message))
end

-- ---- messages ----

local function varint(n)
  local out = {}
  while n >= 128 do
    out[#out + 1] = string.char(n % 128 + 128)
    n = math.floor(n / 128)
  end
  out[#out + 1] = string.char(n)
  return table.concat(out)
end

local function raw(ctype, value) return ffi.string(ffi.new(ctype .. '[1]', value), ffi.sizeof(ctype)) end
local function field(number, wire) return string.char(number * 8 + wire) end
local function bytes(number, text) return field(number, 2) .. varint(#text) .. text end

local function event(time, step, content)
  return record(field(1, 1) .. raw('double', time) .. (step and field(2, 0) .. varint(step) or '') .. content)
end

-- ---- files ----

-- Not synced: what a power cut takes from here is in metrics.jsonl.
local function append(path, text)
  local out, why = io.open(path, 'ab')
  if not out then error('cannot write ' .. why, 0) end
  out:setvbuf 'no' -- what fails shall fail here
  local ok, problem = out:write(text)
  out:close()
  if not ok then error(('cannot write %s: %s'):format(path, problem), 0) end
end

-- The event file in a folder, or nil.
function M.find(folder)
  for name in lfs.dir(folder) do
    local path = folder .. '/' .. name
    if name:find('tfevents', 1, true) and lfs.attributes(path, 'mode') ~= 'directory' then return path end
  end
end

-- Bytes of the whole records at the beginning of a file.
local function whole(text)
  local at = 0
  while at + HEAD + TAIL <= #text do
    local length = file.u64(ffi.cast('const uint8_t *', text) + at)
    if at + HEAD + length + TAIL > #text then break end
    at = at + HEAD + length + TAIL
  end
  return at
end

-- Adds scalars (name -> number) of a step to the event file in folder, which is made when it is absent.
function M.add(folder, step, scalars)
  local path, now = M.find(folder), os.time()
  local text = ''
  if not path then
    path = ('%s/events.out.tfevents.%d.tycho'):format(folder, now)
    text = event(now, nil, bytes(3, 'brain.Event:2'))
  end
  local names, values = {}, {}
  for name, value in pairs(scalars) do
    if type(value) == 'number' then names[#names + 1] = name end
  end
  table.sort(names)
  for i, name in ipairs(names) do values[i] = bytes(1, bytes(1, name) .. field(2, 5) .. raw('float', scalars[name])) end
  append(path, text .. event(now, step, bytes(5, table.concat(values))))
end

-- After an interruption: half a record of a killed process goes, and readers are told to forget what was logged from step on.
function M.restart(folder, step)
  local path = M.find(folder)
  if not path then return end
  local handle = assert(io.open(path, 'rb'))
  local text = handle:read('*a')
  handle:close()
  local keep = whole(text)
  if keep < #text then file.write(path, text:sub(1, keep)) end
  append(path, event(os.time(), step, bytes(7, field(1, 0) .. varint(1)))) -- SessionLog.START
end

return M
