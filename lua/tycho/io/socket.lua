-- Private sockets in the file system, between processes of one user on one machine, and messages over them: Lua tables as JSON, each with its
-- length before it. Nothing here waits unasked, and nothing calls back.
local ffi = require 'ffi'
local bit = require 'bit'
local file = require 'tycho.io.file'
local json = require 'tycho.io.json'
require 'tycho.repl.terminal' -- declares poll

ffi.cdef [[
typedef struct { unsigned short family; char path[108]; } tycho_sockaddr;
int socket(int domain, int type, int protocol);
int bind(int fd, const tycho_sockaddr *address, unsigned length);
int listen(int fd, int backlog);
int accept4(int fd, void *address, void *length, int flags);
int connect(int fd, const tycho_sockaddr *address, unsigned length);
long send(int fd, const void *data, size_t size, int flags);
long recv(int fd, void *data, size_t size, int flags);
int close(int fd);
int open(const char *path, int flags, ...);
unsigned umask(unsigned mask);
]]
local C = ffi.C
local AF_UNIX, STREAM, NONBLOCK, CLOEXEC, NOSIGNAL = 1, 1, 0x800, 0x80000, 0x4000
local O_DIRECTORY = 0x10000
local EINTR, EAGAIN, ECONNREFUSED = 4, 11, 111
local POLLIN = 1
local LARGEST = 2^26 -- bytes of a message
local PATIENCE = 2000 -- milliseconds

local M = {}

-- Calls fn(address, length) with the address of folder/name. A path in an address holds 107 bytes, so it goes through the folder's own descriptor.
local function with_address(folder, name, fn)
  local fd = C.open(folder, bit.bor(O_DIRECTORY, CLOEXEC))
  if fd < 0 then return fd end
  local address = ffi.new('tycho_sockaddr', AF_UNIX)
  ffi.copy(address.path, ('/proc/self/fd/%d/%s'):format(fd, name))
  local result = fn(address, ffi.sizeof(address))
  local number = ffi.errno()
  C.close(fd)
  ffi.errno(number)
  return result
end

-- ---- messages ----

local Connection = {}
Connection.__index = Connection

local function wait_for(fd, milliseconds)
  return C.poll(ffi.new('tycho_pollfd[1]', { { fd = fd, events = POLLIN } }), 1, milliseconds) > 0
end

-- Sends a table; false when nobody listens any more.
function Connection:send(message)
  local text = json.encode(message)
  local data = file.put_u32(#text) .. text
  local sent = 0
  while sent < #data do
    local n = tonumber(C.send(self.fd, ffi.cast('const char *', data) + sent, #data - sent, NOSIGNAL))
    if n < 0 and ffi.errno() ~= EINTR then return false end
    sent = sent + math.max(n, 0)
  end
  return true
end

-- Once a message has begun, all of it comes soon.
local function receive_bytes(fd, size)
  local buffer, have = ffi.new('uint8_t[?]', size), 0
  while have < size do
    if have > 0 and not wait_for(fd, PATIENCE) then return nil end
    local n = tonumber(C.recv(fd, buffer + have, size - have, 0))
    if n == 0 or n < 0 and ffi.errno() ~= EINTR then return nil end
    have = have + math.max(n, 0)
  end
  return buffer
end

-- The next message, a table, or nil when the other side has gone or speaks another language.
function Connection:receive()
  local head = receive_bytes(self.fd, 4)
  local size = head and file.u32(head)
  if not size or size > LARGEST then return nil end
  local body = wait_for(self.fd, PATIENCE) and receive_bytes(self.fd, size)
  local is_read, message = pcall(json.decode, body and ffi.string(body, size) or '')
  return is_read and type(message) == 'table' and message or nil
end

-- Whether a message (or the end) arrives within so many milliseconds; false too when a signal ended the wait.
function Connection:is_pending(milliseconds) return wait_for(self.fd, milliseconds) end

function Connection:close()
  if self.fd then C.close(self.fd) end
  self.fd = nil
end

-- ---- both ends ----

local Listener = {}
Listener.__index = Listener

-- Listens at folder/name, which only this user may open. One that a dead process left is replaced: the caller has the folder for itself.
function M.listen(folder, name)
  local path = folder .. '/' .. name
  os.remove(path)
  local fd = C.socket(AF_UNIX, STREAM + NONBLOCK + CLOEXEC, 0)
  local mask = C.umask(127) -- 0177: never open to others, not for a moment
  local failed = fd < 0 or with_address(folder, name, function(address, length) return C.bind(fd, address, length) end) ~= 0 or C.listen(fd, 4) ~= 0
  C.umask(mask)
  if failed then file.fail(path, 'cannot listen: %s', ffi.string(C.strerror(ffi.errno()))) end
  return setmetatable({ fd = fd, path = path }, Listener)
end

-- A connection that somebody has made, or nil. Does not wait.
function Listener:accept()
  local fd = C.accept4(self.fd, nil, nil, CLOEXEC)
  return fd >= 0 and setmetatable({ fd = fd }, Connection) or nil
end

function Listener:close()
  C.close(self.fd)
  os.remove(self.path)
end

-- Connects to folder/name. Returns the connection, or nil and 'dead' (a process that has ended left it), 'absent' or another reason.
function M.connect(folder, name)
  local fd = C.socket(AF_UNIX, STREAM + CLOEXEC, 0)
  if with_address(folder, name, function(address, length) return C.connect(fd, address, length) end) == 0 then
    return setmetatable({ fd = fd }, Connection)
  end
  local number = ffi.errno()
  C.close(fd)
  if number == ECONNREFUSED then return nil, 'dead' end
  if number == 2 then return nil, 'absent' end
  return nil, number == EAGAIN and 'busy' or ffi.string(C.strerror(number))
end

return M
