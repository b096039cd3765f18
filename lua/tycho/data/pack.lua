-- Packed image sets: one file with N objects of V views each, as u8 images of one size, with a row of numbers for each view, and a label and a
-- name for each object. It is mapped, never read whole. Knows no layout that objects come from.
--
--   0     'TYCHOPCK', u32 version, u32 length of the header (both little-endian), XXH64 of the header as 16 hex digits
--   32    the header: JSON, see M.fields; zeros up to 4096
--   4096  images u8 (N,V,H,W,3); zeros up to a multiple of 64
--   then  rows f64 (N,V,L), labels i64 (N), and a line of text for each object: XXH64 of its images, a blank, its name
--
-- Writing goes to PATH.partial, with a line for each finished object in PATH.journal; a killed writer goes on at the first object whose line or
-- checksum does not fit. PATH appears whole.
local ffi = require 'ffi'
local file = require 'tycho.io.file'
local hash = require 'tycho.hash'
local json = require 'tycho.io.json'
local tensor = require 'tycho.tensor'

local M = { version = 1 }

local MAGIC, START, IMAGES = 'TYCHOPCK', 32, 4096
local BYTE_ORDER = ffi.abi('le') and 'little' or 'big'
local fail = file.fail

-- columns: L; decoder, source: text; bytes: of the file; tail: XXH64 of all that follows the images.
M.fields = { 'objects', 'views', 'height', 'width', 'columns', 'decoder', 'source', 'byte_order', 'bytes', 'tail' }

-- Bytes of an object's images, and where the sections begin.
local function layout(header)
  local block = header.views * header.height * header.width * 3
  local rows = math.ceil((IMAGES + header.objects * block) / 64) * 64
  local labels = rows + header.objects * header.views * header.columns * 8
  return { block = block, rows = rows, labels = labels, lines = labels + header.objects * 8 }
end

local function bytes_of(x) return x:ptr(), x:numel() * x.type.size end

-- ---- reading ----

local function read_header(path, bytes, size)
  if size < START or ffi.string(bytes, 8) ~= MAGIC then fail(path, 'not a packed image set: it must begin with %s', MAGIC) end
  local version, length = file.u32(bytes + 8), file.u32(bytes + 12)
  if version ~= M.version then
    fail(path, 'has version %.0f of the format, this program reads version %d; pack the data again', version, M.version)
  end
  if length > IMAGES - START or size < IMAGES or hash(bytes + START, length) ~= ffi.string(bytes + 16, 16) then
    fail(path, 'the header is damaged; pack the data again')
  end
  local header = json.decode(ffi.string(bytes + START, length), path)
  if type(header) ~= 'table' then fail(path, 'the header is no JSON object; pack the data again') end
  for _, field in ipairs(M.fields) do
    if header[field] == nil then fail(path, 'the header lacks %s; pack the data again', field) end
  end
  for _, field in ipairs { 'objects', 'views', 'height', 'width', 'columns' } do
    local value = header[field]
    if type(value) ~= 'number' or value < 1 or value > 2^40 or value ~= math.floor(value) then
      fail(path, 'the header has %s = %s, not a whole number >= 1; pack the data again', field, tostring(value))
    end
  end
  if header.byte_order ~= BYTE_ORDER then
    fail(path, 'was packed on a machine of %s-endian byte order; pack the data again on this one', header.byte_order)
  end
  if header.bytes ~= size or layout(header).lines > size then
    fail(path, 'must have %.0f bytes, it has %.0f; copy or pack it again', math.max(tonumber(header.bytes) or 0, layout(header).lines), size)
  end
  return header
end

-- {header, images u8 (N*V,H,W,3), rows f64 (N*V,L), labels i64 (N), names, sums, checksum}: tensors over the mapped file, lists, and the
-- header's checksum, which changes with anything in the file. Checks the header alone.
function M.open(path)
  local storage, size = file.map(path)
  local bytes = ffi.cast('uint8_t *', storage.block)
  local header = read_header(path, bytes, size)
  local at, views = layout(header), header.objects * header.views
  local names, sums = {}, {}
  for sum, name in ffi.string(bytes + at.lines, size - at.lines):gmatch('(%x+) ([^\n]*)\n') do
    names[#names + 1], sums[#sums + 1] = name, sum
  end
  if #names ~= header.objects then fail(path, 'must have the names of %d objects, it has %d; pack the data again', header.objects, #names) end
  return {
    header = header, names = names, sums = sums, checksum = ffi.string(bytes + 16, 16),
    images = tensor.from_storage(storage, IMAGES, { views, header.height, header.width, 3 }, 'u8'),
    rows = tensor.from_storage(storage, at.rows, { views, header.columns }, 'f64'),
    labels = tensor.from_storage(storage, at.labels, { header.objects }, 'i64'),
  }
end

-- Opens path and compares every checksum. each(i, N): called after object i.
function M.verify(path, each)
  local pack = M.open(path)
  local at, bytes = layout(pack.header), pack.images:ptr() - IMAGES
  if hash(bytes + at.rows, pack.header.bytes - at.rows) ~= pack.header.tail then
    fail(path, 'its rows, labels or names are damaged; pack the data again')
  end
  local bad, first = 0, nil
  for i, sum in ipairs(pack.sums) do
    if hash(bytes + IMAGES + (i - 1) * at.block, at.block) ~= sum then bad, first = bad + 1, first or pack.names[i] end
    if each then each(i, #pack.sums) end
  end
  if bad > 0 then fail(path, 'the images of %d of %d objects are damaged, the first: %s; pack the data again', bad, #pack.sums, first) end
  return pack
end

-- ---- writing ----

local Writer = {}
Writer.__index = Writer
local LEFT_OUT = '-'

-- The lines of a journal, without a last one that was cut off.
local function read_lines(journal)
  local lines = {}
  for line in journal.file:read('*a'):gmatch('([^\n]*\n)') do lines[#lines + 1] = line end
  return lines
end

-- Takes over the objects whose lines bear the right identity and whose images bear the right checksum. Returns the bytes of their lines.
local function take_over(self, lines, identities, each)
  local length = #lines[1]
  file.with_mapping(self.path .. '.partial', function(bytes, size)
    for i = 1, math.min(#identities, #lines - 1) do
      local identity, sum = lines[i + 1]:match('^(%S+) (%S+)\n$')
      local start = IMAGES + #self.kept * self.block
      local there = sum == LEFT_OUT or (start + self.block <= size and hash(bytes + start, self.block) == sum)
      if identity ~= identities[i] or not there then return end
      self.settled, length = i, length + #lines[i + 1]
      if sum ~= LEFT_OUT then self.kept[#self.kept + 1], self.sums[#self.sums + 1] = i, sum end
      if each then each(i) end
    end
  end)
  return length
end

-- Begins to write path, or goes on. header: views, height, width, columns, decoder. identities: a word without blanks for each object to come,
-- which changes with what the object is packed from. each(i): called after each object that need not come again. Fields: settled, the number
-- of those; kept, the numbers (from 1) of the objects that were not left out.
function M.create(path, header, identities, each)
  local self = setmetatable({ path = path, header = header, identities = identities, settled = 0, kept = {}, sums = {} }, Writer)
  self.block = header.views * header.height * header.width * 3
  local title = ('packed image set %d: %d views, %d x %d, %d columns, %s\n'):format(M.version, header.views, header.height, header.width,
    header.columns, header.decoder)
  self.lock = file.lock(path .. '.journal')
  if not self.lock then error(('%s is being written by another process'):format(path), 0) end
  self.journal, self.out = file.open(path .. '.journal'), file.open(path .. '.partial')
  local lines = read_lines(self.journal)
  if lines[1] and lines[1] ~= title then
    self:close()
    error(('%s.partial was begun as "%s", but this would be "%s"; remove it to begin anew'):format(path, lines[1]:sub(1, -2),
      title:sub(1, -2)), 0)
  end
  self.journal:cut(lines[1] and take_over(self, lines, identities, each) or 0)
  if not lines[1] then self.journal:write(title) end
  self.out:cut(IMAGES + #self.kept * self.block)
  return self
end

-- The next object: its images u8 (V,H,W,3), or nil to leave it out.
function Writer:add(images)
  local sum
  if images then
    local data, size = bytes_of(images)
    sum = hash(data, size)
    self.out:write(data, size)
    self.out:flush()
  end
  self.settled = self.settled + 1
  self.journal:write(('%s %s\n'):format(self.identities[self.settled], sum or LEFT_OUT))
  self.journal:flush()
  if sum then self.kept[#self.kept + 1], self.sums[#self.sums + 1] = self.settled, sum end
end

-- Ends the file and gives it its name. tail: rows f64 (N*V,L), labels i64 (N), names, of the objects kept; source: text for the header.
function Writer:finish(tail)
  local out = self.out
  local header = { byte_order = BYTE_ORDER, source = tail.source, objects = #self.kept }
  for key, value in pairs(self.header) do header[key] = value end
  local at = layout(header)
  out:write(('\0'):rep(at.rows - out.position))
  out:write(bytes_of(tail.rows))
  out:write(bytes_of(tail.labels))
  for i, name in ipairs(tail.names) do out:write(('%s %s\n'):format(self.sums[i], name)) end
  out:flush()
  header.bytes = out.position
  header.tail = file.with_mapping(out.path, function(bytes, size) return hash(bytes + at.rows, size - at.rows) end)
  local text = json.encode(header)
  if #text > IMAGES - START then
    fail(self.path, 'the header has %d bytes, at most %d fit; shorten the description of its source', #text, IMAGES - START)
  end
  out:seek(0)
  out:write(MAGIC .. file.put_u32(M.version) .. file.put_u32(#text) .. hash(text) .. text .. ('\0'):rep(IMAGES - START - #text))
  out:finish(self.path)
  os.remove(self.journal.path)
  self.journal:close()
  self.lock:close()
end

-- Ends the writing; what was added stays for the next writer.
function Writer:close()
  self.out:close()
  self.journal:close()
  self.lock:close()
end

-- Removes path and what is left of writing it.
function M.remove(path)
  for _, ending in ipairs { '', '.partial', '.journal' } do os.remove(path .. ending) end
end

return M
