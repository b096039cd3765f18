-- ZIP archives over mapped bytes: stored and deflated entries, zip64, CRC-32 checked. Only the central directory is trusted,
-- and only after every number in it was checked against the file. No encryption, no multiple volumes, no unpacking to disk.
-- Format: PKWARE APPNOTE 6.3.
local ffi = require 'ffi'
local file = require 'tycho.io.file'
local is_utf8 = require 'tycho.io.utf8'
local fail, u16, u32, u64 = file.fail, file.u16, file.u32, file.u64

ffi.cdef [[
unsigned long crc32_z(unsigned long crc, const void *data, size_t size);
typedef struct tycho_z_stream {
  const uint8_t *next_in; unsigned avail_in; unsigned long total_in;
  uint8_t *next_out; unsigned avail_out; unsigned long total_out;
  const char *msg; void *state; void *zalloc; void *zfree; void *opaque;
  int data_type; unsigned long adler; unsigned long reserved;
} tycho_z_stream;
int inflateInit2_(tycho_z_stream *, int window_bits, const char *version, int size);
int inflate(tycho_z_stream *, int flush);
int inflateEnd(tycho_z_stream *);
int deflateInit2_(tycho_z_stream *, int level, int method, int window_bits, int memory, int strategy, const char *version,
                  int size);
int deflate(tycho_z_stream *, int flush);
int deflateEnd(tycho_z_stream *);
]]
local z = ffi.load('libz.so.1')
local RAW_DEFLATE, DEFLATED, FINISH, OK, STREAM_END = -15, 8, 4, 0, 1
local VERSION = '1.2.11' -- of the interface
local STEP = 2^30 -- zlib counts in 32 bits

local M = {}

-- Runs step (inflate or deflate) over one piece of input into to + made: the bytes written so far, or nil when the stream ends before the
-- last piece does, or not with it, or needs more than room bytes.
local function run(step, stream, piece, last, to, made, room)
  local used = 0
  while true do
    local give, take = math.min(piece.size - used, STEP), math.min(room - made, STEP)
    stream.next_in, stream.avail_in, stream.next_out, stream.avail_out = piece.bytes + used, give, to + made, take
    local status = step(stream, last and used + give == piece.size and FINISH or 0)
    local read, wrote = give - stream.avail_in, take - stream.avail_out
    used, made = used + read, made + wrote
    if status == STREAM_END then return last and used == piece.size and made or nil end
    if not last and used == piece.size and stream.avail_out > 0 then return made end
    if (status ~= OK and status ~= -5) or (read == 0 and wrote == 0) then return nil end
  end
end

local function inflate(from, size, to, expected)
  local stream = ffi.new('tycho_z_stream')
  if z.inflateInit2_(stream, RAW_DEFLATE, VERSION, ffi.sizeof(stream)) ~= OK then error('zlib failed to start', 0) end
  local made = run(z.inflate, stream, { bytes = from, size = size }, true, to, 0, expected)
  z.inflateEnd(stream)
  return made == expected
end

-- Bytes made, or nil when there is no room for them.
local function deflate(pieces, to, room)
  local stream = ffi.new('tycho_z_stream')
  if z.deflateInit2_(stream, 6, DEFLATED, RAW_DEFLATE, 8, 0, VERSION, ffi.sizeof(stream)) ~= OK then error('zlib failed to start', 0) end
  local made = 0
  for i, piece in ipairs(pieces) do made = made and run(z.deflate, stream, piece, i == #pieces, to, made, room) end
  z.deflateEnd(stream)
  return made
end

-- ---- reading ----

-- The end record: number of entries, size and offset of the central directory.
local function find_end(bytes, size, where)
  if size >= 22 then
    for at = size - 22, math.max(0, size - 22 - 65535), -1 do
      local p = bytes + at
      if p[0] == 0x50 and u32(p) == 0x06054b50 and at + 22 + u16(p + 20) == size then
        local count, length, offset = u16(p + 10), u32(p + 12), u32(p + 16)
        local finish = at
        if at >= 20 and u32(p - 20) == 0x07064b50 then
          local far = u64(p - 12)
          if far + 56 > at or u32(bytes + far) ~= 0x06064b50 then fail(where, 'the zip64 end record is damaged') end
          local q = bytes + far
          count, length, offset, finish = u64(q + 32), u64(q + 40), u64(q + 48), far
        end
        if offset + length > finish or count * 46 > length then
          fail(where, 'the zip directory claims %.0f entries in %.0f bytes at %.0f, which the file does not hold', count, length, offset)
        end
        return count, length, offset
      end
    end
  end
  fail(where, 'no zip directory at the end of the file: it is cut off, or not a zip archive')
end

-- Fills in the fields that the 32-bit record marks as saturated, from extra field 1.
local function read_zip64(entry, p, length, where)
  local at = 0
  while at + 4 <= length do
    local id, size = u16(p + at), u16(p + at + 2)
    if at + 4 + size > length then break end
    if id == 1 then
      local q, stop = p + at + 4, p + at + 4 + size
      for _, field in ipairs { 'size', 'packed', 'offset' } do
        if entry[field] == 0xffffffff and q + 8 <= stop then entry[field], q = u64(q), q + 8 end
      end
      return
    end
    at = at + 4 + size
  end
  if entry.size == 0xffffffff or entry.packed == 0xffffffff then fail(where, 'an entry lacks its 64-bit size') end
end

-- Entries that share bytes would let a small file unfold without end.
local function refuse_overlaps(archive)
  local sorted = {}
  for i, entry in ipairs(archive) do sorted[i] = entry end
  table.sort(sorted, function(a, b) return a.offset < b.offset end)
  for i = 2, #sorted do
    if sorted[i].offset < sorted[i - 1].start + sorted[i - 1].packed then fail(sorted[i].where, 'overlaps another entry in the file') end
  end
end

-- Directory of the archive in bytes: a list of entries { name, size, packed, ... } that is also a table by name (archive.by_name).
-- where names the file in errors; mapping: the mapped file that bytes are.
function M.open(bytes, size, where, mapping)
  local count, length, offset = find_end(bytes, size, where)
  local archive = { by_name = {} }
  local p, stop = bytes + offset, bytes + offset + length
  for i = 1, count do
    if p + 46 > stop or u32(p) ~= 0x02014b50 then fail(where, 'zip directory entry %d of %.0f is damaged', i, count) end
    local name_length, extra, comment = u16(p + 28), u16(p + 30), u16(p + 32)
    if p + 46 + name_length + extra + comment > stop then fail(where, 'zip directory entry %d of %.0f is cut off', i, count) end
    local entry = { name = ffi.string(p + 46, name_length), flags = u16(p + 8), method = u16(p + 10), crc = u32(p + 16),
      packed = u32(p + 20), size = u32(p + 24), offset = u32(p + 42) }
    read_zip64(entry, p + 46 + name_length, extra, where)
    local here = where .. ': ' .. entry.name
    if archive.by_name[entry.name] then fail(here, 'the name occurs twice in the archive') end
    if entry.flags % 2 == 1 then fail(here, 'the entry is encrypted') end
    if entry.method ~= 0 and entry.method ~= DEFLATED then
      fail(here, 'compression method %d is not supported (store and deflate are)', entry.method)
    end
    if entry.offset + 30 > offset or u32(bytes + entry.offset) ~= 0x04034b50 then
      fail(here, 'the zip directory points to a wrong place')
    end
    local head = bytes + entry.offset
    entry.start = entry.offset + 30 + u16(head + 26) + u16(head + 28)
    if entry.start + entry.packed > offset then fail(here, 'claims %.0f bytes, more than the file holds', entry.packed) end
    if entry.method == 0 and entry.size ~= entry.packed then fail(here, 'a stored entry has two different sizes') end
    entry.bytes, entry.where, entry.mapping = bytes, here, mapping
    archive[i], archive.by_name[entry.name] = entry, entry
    p = p + 46 + name_length + extra + comment
  end
  refuse_overlaps(archive)
  return archive
end

-- Calls fn(data, mapping) with the entry's entry.size bytes, checked, and returns its results. mapping: the file that they lie in, or nil
-- when they were inflated and die with the call.
function M.read(entry, fn)
  local packed = entry.bytes + entry.start
  local function checked(data, mapping)
    if tonumber(z.crc32_z(0, data, entry.size)) ~= entry.crc then fail(entry.where, 'the CRC-32 does not match: the file is damaged') end
    return fn(data, mapping)
  end
  if entry.method == 0 then return checked(packed, entry.mapping) end
  -- Deflate cannot shrink by more than 1032: a larger claim is a lie, and is not allocated.
  if entry.size > entry.packed * 1032 + 64 then
    fail(entry.where, 'claims %.0f bytes in %.0f deflated ones, which deflate cannot do', entry.size, entry.packed)
  end
  return file.with_block(entry.size, function(data)
    if not inflate(packed, entry.packed, data, entry.size) then
      fail(entry.where, 'the deflated data is damaged (expected %.0f bytes from it)', entry.size)
    end
    return checked(data)
  end)
end

-- ---- writing ----

local UTF8_NAME = '\0\8'
local TIMESTAMP = '\0\0\33\0' -- 1980-01-01 00:00: equal content gives equal files

local Archive = {}
Archive.__index = Archive

local function write_entry(archive, entry, pieces, align)
  local out, name, extra = archive.out, entry.name, ''
  local large = entry.size >= 0xffffffff
  if large then extra = file.put_u16(1) .. file.put_u16(16) .. file.put_u64(entry.size) .. file.put_u64(entry.packed) end
  if align then
    local padding = -(entry.offset + 30 + #name + #extra + 4) % align
    extra = extra .. 'FB' .. file.put_u16(padding) .. ('Z'):rep(padding)
  end
  out:write('PK\3\4' .. file.put_u16(large and 45 or 20) .. UTF8_NAME .. file.put_u16(entry.method) .. TIMESTAMP .. file.put_u32(entry.crc)
    .. file.put_u32(large and 0xffffffff or entry.packed) .. file.put_u32(large and 0xffffffff or entry.size)
    .. file.put_u16(#name) .. file.put_u16(#extra) .. name .. extra)
  for _, piece in ipairs(pieces) do out:write(piece.bytes, piece.size) end
  archive[#archive + 1] = entry
end

-- Appends an entry of pieces one after the other, each a string or { bytes = pointer, size = }; or of one string. options: compress = true
-- deflates what becomes smaller by it; align = n puts data that is not deflated at a multiple of n bytes, with padding in an extra field 'FB'
-- as PyTorch does.
function Archive:add(name, pieces, options)
  options = options or {}
  if #name > 65535 or not is_utf8(name) then
    fail(self.out.path, 'cannot hold an entry with the name %q: expected at most 65535 bytes of UTF-8 text', name:sub(1, 40))
  end
  local entry = { name = name, size = 0, crc = 0, method = 0, offset = self.out.position }
  local parts = {}
  for i, piece in ipairs(type(pieces) == 'string' and { pieces } or pieces) do
    parts[i] = type(piece) == 'string' and { bytes = ffi.cast('const uint8_t *', piece), size = #piece, text = piece }
      or { bytes = ffi.cast('const uint8_t *', piece.bytes), size = piece.size }
    entry.size = entry.size + parts[i].size
    entry.crc = tonumber(z.crc32_z(entry.crc, parts[i].bytes, parts[i].size))
  end
  entry.packed = entry.size
  if not options.compress then return write_entry(self, entry, parts, options.align) end
  file.with_block(entry.size, function(block)
    local packed = deflate(parts, block, entry.size)
    if packed then
      entry.packed, entry.method = packed, DEFLATED
      parts = { { bytes = block, size = packed } }
    end
    write_entry(self, entry, parts, not packed and options.align)
  end)
end

local function finish(archive)
  local out = archive.out
  local start = out.position
  for _, e in ipairs(archive) do
    local saturated, extra = {}, ''
    for _, field in ipairs { 'size', 'packed', 'offset' } do
      saturated[field] = math.min(e[field], 0xffffffff)
      if saturated[field] == 0xffffffff then extra = extra .. file.put_u64(e[field]) end
    end
    if extra ~= '' then extra = file.put_u16(1) .. file.put_u16(#extra) .. extra end
    local version = file.put_u16(extra ~= '' and 45 or 20)
    out:write('PK\1\2' .. version .. version .. UTF8_NAME .. file.put_u16(e.method) .. TIMESTAMP .. file.put_u32(e.crc)
      .. file.put_u32(saturated.packed) .. file.put_u32(saturated.size) .. file.put_u16(#e.name) .. file.put_u16(#extra)
      .. ('\0'):rep(10) .. file.put_u32(saturated.offset) .. e.name .. extra)
  end
  local size, place = out.position - start, out.position
  if #archive >= 0xffff or place >= 0xffffffff then
    out:write('PK\6\6' .. file.put_u64(44) .. file.put_u16(45) .. file.put_u16(45) .. ('\0'):rep(8) .. file.put_u64(#archive)
      .. file.put_u64(#archive) .. file.put_u64(size) .. file.put_u64(start))
    out:write('PK\6\7' .. ('\0'):rep(4) .. file.put_u64(place) .. file.put_u32(1))
  end
  local count = file.put_u16(math.min(#archive, 0xffff))
  out:write('PK\5\6' .. ('\0'):rep(4) .. count .. count .. file.put_u32(math.min(size, 0xffffffff))
    .. file.put_u32(math.min(start, 0xffffffff)) .. '\0\0')
end

-- Writes an archive whole or not at all: fn(archive) calls archive:add(name, pieces, options).
function M.write(path, fn)
  file.write(path, function(out)
    local archive = setmetatable({ out = out }, Archive)
    fn(archive)
    finish(archive)
  end)
end

return M
