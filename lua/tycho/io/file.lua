-- Files as bytes: mappings, atomic writes, locks, unaligned little-endian fields. Knows no format.
local ffi = require 'ffi'
local lfs = require 'lfs'
local lib = require 'tycho.lib'
local storages = require 'tycho.storage'

ffi.cdef [[
void *mmap(void *address, size_t length, int protection, int flags, int fd, long offset);
int munmap(void *address, size_t length);
int fileno(void *file);
int fflush(void *file);
int fsync(int fd);
int sync_file_range(int fd, int64_t offset, int64_t bytes, unsigned flags);
int ftruncate(int fd, long length);
int flock(int fd, int operation);
int getpid(void);
size_t fwrite(const void *data, size_t size, size_t count, void *file);
char *strerror(int number);
void *malloc(size_t bytes);
void free(void *block);
struct tycho_statvfs { unsigned long bsize, frsize; uint64_t blocks, bfree, bavail; char rest[256]; };
int statvfs(const char *path, struct tycho_statvfs *out);
]]
local C = ffi.C
local PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_NORESERVE = 1, 2, 2, 0x4000
local LOCK_EXCLUSIVE, LOCK_AT_ONCE, WOULD_BLOCK = 2, 4, 11
local LARGE, BEGIN = 2^20, 2 -- SYNC_FILE_RANGE_WRITE

local M = {}

-- Raises one sentence: where (a file, or a file and the part of it), then the formatted rest. Control characters, which names in a foreign
-- file may hold, do not reach the terminal.
function M.fail(where, message, ...)
  local text = ('%s: %s'):format(where, select('#', ...) > 0 and message:format(...) or message)
  error((text:gsub('%c', '?')), 0)
end
local fail = M.fail

local function finish(cleanup, ok, ...)
  cleanup()
  if not ok then error((...), 0) end
  return ...
end

-- A mapped file: bytes (uint8_t *) and size. Pages are read when touched, a change stays in memory. Unmapped when neither with_mapping nor a
-- storage uses it; the file must keep its length until then.
local Mapping = {}
Mapping.__index = Mapping

local function try_to_map(file, size)
  local address = C.mmap(nil, size, PROT_READ + PROT_WRITE, MAP_PRIVATE + MAP_NORESERVE, C.fileno(file), 0)
  if ffi.cast('intptr_t', address) ~= -1 then return address end
end

local function open(path)
  local function refuse() error(('cannot read %s: it is a folder or a pipe, not a file'):format(path), 0) end
  if lfs.attributes(path, 'mode') == 'named pipe' then refuse() end -- opening it would wait for who writes to it
  local file, why = io.open(path, 'rb')
  if not file then error('cannot read ' .. why, 0) end
  local size = file:seek('end')
  if not size or size >= 2^62 then
    file:close()
    refuse()
  end
  local address
  if size > 0 then
    address = try_to_map(file, size)
    if not address then -- mappings that nothing uses any more may fill the system's table
      storages.collect()
      address = try_to_map(file, size)
    end
  end
  local number = ffi.errno()
  file:close()
  if size > 0 and not address then error(('cannot read %s: %s'):format(path, ffi.string(C.strerror(number))), 0) end
  local bytes = address and ffi.cast('uint8_t *', address) or ffi.new('uint8_t[1]')
  return setmetatable({ bytes = bytes, size = size, address = address, users = 1 }, Mapping)
end

function Mapping:close()
  self.users = self.users - 1
  if self.users == 0 and self.address then C.munmap(self.address, self.size) end
end

-- A storage over the bytes from pointer on, for tensor.from_storage.
function Mapping:storage(pointer)
  self.users = self.users + 1
  return storages.adopt(pointer, function() self:close() end)
end

-- Calls fn(bytes, size, mapping) with path mapped and returns its results. The bytes die with the call, but for those that
-- mapping:storage(pointer) has made a storage of.
function M.with_mapping(path, fn)
  local mapping = open(path)
  return finish(function() mapping:close() end, pcall(fn, mapping.bytes, mapping.size, mapping))
end

-- A storage over all bytes of path, and their number.
function M.map(path)
  local mapping = open(path)
  local storage = mapping:storage(mapping.bytes)
  mapping:close()
  return storage, mapping.size
end

-- Calls fn(block) with size fresh bytes outside Lua's heap and returns its results. The bytes die with the call.
function M.with_block(size, fn)
  local block = C.malloc(math.max(size, 1))
  if block == nil then error(('out of memory: asked for %.0f bytes'):format(size), 0) end
  return finish(function() C.free(block) end, pcall(fn, ffi.cast('uint8_t *', block)))
end

-- Bytes that this user may still write to the disk that folder lies on.
function M.free_bytes(folder)
  local disk = ffi.new('struct tycho_statvfs')
  if C.statvfs(folder, disk) ~= 0 then fail(folder, 'cannot see the free space: %s', ffi.string(C.strerror(ffi.errno()))) end
  return tonumber(disk.bavail) * tonumber(disk.frsize)
end

local Writer = {}
Writer.__index = Writer

-- Appends a string, or size bytes at a pointer.
function Writer:write(data, size)
  lib.check_interrupt()
  size = size or #data
  if size > 0 and C.fwrite(data, 1, size, self.file) ~= size then
    fail(self.path, 'cannot write: %s', ffi.string(C.strerror(ffi.errno())))
  end
  if size >= LARGE then C.sync_file_range(C.fileno(self.file), 0, 0, BEGIN) end -- the disk works while the rest is made
  self.position = self.position + size
end

local function flush(file, path)
  if C.fflush(file) ~= 0 or C.fsync(C.fileno(file)) ~= 0 then
    fail(path, 'cannot write: %s', ffi.string(C.strerror(ffi.errno())))
  end
end

-- A file that is written piece by piece and may be taken up again: opened as it is, made if it is absent. Has write, cut (to a length; goes on
-- there), seek, flush (to the system: survives the process), finish (to the disk; gives it its name `path`) and close.
function M.open(path)
  local file, why = io.open(path, 'r+b')
  if not file then file, why = io.open(path, 'w+b') end
  if not file then error(('cannot write %s: %s'):format(path, why:match('[^:]*$'):sub(2)), 0) end
  return setmetatable({ file = file, path = path, position = 0 }, Writer)
end
function Writer:seek(position)
  self.file:seek('set', position)
  self.position = position
end
function Writer:flush()
  if C.fflush(self.file) ~= 0 then fail(self.path, 'cannot write: %s', ffi.string(C.strerror(ffi.errno()))) end
end
function Writer:cut(length)
  self:flush()
  if C.ftruncate(C.fileno(self.file), length) ~= 0 then fail(self.path, 'cannot write: %s', ffi.string(C.strerror(ffi.errno()))) end
  self:seek(length)
end
function Writer:close() self.file:close() end

-- A new name in a folder outlives a power cut once the folder is synced; file systems that cannot are left alone.
local function sync_folder_of(path)
  local folder = io.open(path:match('^(.*/)[^/]*$') or '.', 'rb')
  if folder then
    C.fsync(C.fileno(folder))
    folder:close()
  end
end

-- The text of a file, or nil when it cannot be read.
function M.read(path)
  local file = io.open(path, 'rb')
  local text = file and file:read('*a')
  if file then file:close() end
  return text
end

-- Makes a folder and those that it lies in, where they are absent.
function M.make_folders(path)
  for partial in (path .. '/'):gmatch('()/') do
    local folder = path:sub(1, partial - 1)
    if folder ~= '' and not lfs.attributes(folder) then
      local ok, why = lfs.mkdir(folder)
      if not ok and not lfs.attributes(folder) then
        error(('cannot make the folder %s: %s'):format(folder, lfs.symlinkattributes(folder) and 'it is a link that leads nowhere' or why), 0)
      end
    end
  end
end

-- Writes path whole or not at all. content: a text, or a function(out) that fills a temporary file beside it with out:write(data [, size]);
-- out.position is the number of bytes so far. The file is synced, then renamed; after any error the temporary is removed.
function M.write(path, content)
  local mode = lfs.attributes(path, 'mode')
  if mode and mode ~= 'file' then error(('cannot write %s: it is a %s, not a file'):format(path, mode), 0) end
  local temporary = ('%s.%d.tmp'):format(path, C.getpid())
  local file, why = io.open(temporary, 'wb')
  if not file then error(('cannot write %s: %s'):format(path, why:match('[^:]*$'):sub(2)), 0) end
  local out = setmetatable({ file = file, path = path, position = 0 }, Writer)
  local ok, message = pcall(function()
    if type(content) == 'string' then out:write(content) else content(out) end
    flush(file, path)
  end)
  file:close()
  if ok then ok, message = os.rename(temporary, path) end
  if not ok then
    os.remove(temporary)
    error(message, 0)
  end
  sync_folder_of(path)
end

function Writer:finish(path)
  flush(self.file, self.path)
  self:close()
  local ok, why = os.rename(self.path, path)
  if not ok then error('cannot write ' .. why, 0) end
  sync_folder_of(path)
end

-- Removes what M.write left in folder and below it when its process was killed. Nobody else may be writing there.
function M.remove_leftovers(folder)
  for name in lfs.dir(folder) do
    local path = folder .. '/' .. name
    if name:match('%.%d+%.tmp$') then
      os.remove(path)
    elseif name ~= '.' and name ~= '..' and lfs.symlinkattributes(path, 'mode') == 'directory' then
      M.remove_leftovers(path)
    end
  end
end

-- Adds text to the end of path, synced. A process that is killed may leave a part of it.
function M.append(path, text)
  local file, why = io.open(path, 'ab')
  if not file then error('cannot write ' .. why, 0) end
  local out = setmetatable({ file = file, path = path, position = 0 }, Writer)
  local ok, message = pcall(function()
    out:write(text)
    flush(file, path)
  end)
  file:close()
  if not ok then error(message, 0) end
end

-- Takes path for this process alone, until the handle that it returns is closed or the process ends, however it ends; for the processes that it
-- starts too, and until they have ended, where is_shared. Returns nil when another process has it. Where the file system has no locks, the handle
-- holds nothing.
function M.lock(path, is_shared)
  local file, why = io.open(path, is_shared and 'ab' or 'abe') -- e: closed in what is started
  if not file then error('cannot write ' .. why, 0) end
  if C.flock(C.fileno(file), LOCK_EXCLUSIVE + LOCK_AT_ONCE) ~= 0 and ffi.errno() == WOULD_BLOCK then
    file:close()
    return nil
  end
  return file
end

-- Little-endian fields at a byte pointer, as Lua numbers; u64 is exact up to 2^53 and merely huge above.
function M.u16(p) return p[0] + p[1] * 256 end
function M.u32(p) return p[0] + p[1] * 256 + p[2] * 65536 + p[3] * 16777216 end
function M.u64(p) return M.u32(p) + M.u32(p + 4) * 4294967296 end

local function little_endian(n, bytes)
  local out = {}
  for i = 1, bytes do
    out[i] = string.char(n % 256)
    n = math.floor(n / 256)
  end
  return table.concat(out)
end
function M.put_u16(n) return little_endian(n, 2) end
function M.put_u32(n) return little_endian(n, 4) end
function M.put_u64(n) return little_endian(n, 8) end

return M
