-- A program in a pseudo-terminal of its own, for specs: start, send keys, expect text.
local ffi = require 'ffi'
local lib = require 'tycho.lib'

require 'tycho.repl.terminal' -- declares read, poll and kill
ffi.cdef [[
typedef struct { unsigned short rows, columns, width, height; } spec_window;
int forkpty(int *master, char *name, const void *termios, const spec_window *window);
int execvp(const char *file, char *const argv[]);
long write(int fd, const void *buffer, size_t count);
int waitpid(int process, int *status, int options);
int close(int fd);
void _exit(int status);
]]
local C = ffi.C
local SIGKILL = 9

local Pty = {}
Pty.__index = Pty

-- Runs a line of the shell. options: {columns = 80, rows = 24}.
local function start(line, options)
  options = options or {}
  local argv = ffi.new('char *[4]')
  local texts = { 'sh', '-c', line }
  for i, text in ipairs(texts) do argv[i - 1] = ffi.cast('char *', text) end
  local master = ffi.new('int[1]')
  local window = ffi.new('spec_window', { options.rows or 24, options.columns or 80 })
  local process = C.forkpty(master, nil, nil, window)
  if process == 0 then
    C.execvp('sh', argv)
    C._exit(127)
  end
  assert(process > 0, 'this machine gives no pseudo-terminal')
  return setmetatable({ process = process, fd = master[0], seen = '', all = '' }, Pty)
end

function Pty:send(text) C.write(self.fd, text, #text) end

local buffer = ffi.new('uint8_t[65536]')
local function read_some(self, milliseconds)
  local wait = ffi.new('tycho_pollfd[1]', { { fd = self.fd, events = 1 } })
  if C.poll(wait, 1, milliseconds) <= 0 then return true end
  local n = tonumber(C.read(self.fd, buffer, 65536))
  if n <= 0 then return false end
  local text = ffi.string(buffer, n)
  self.seen, self.all = self.seen .. text, self.all .. text
  return true
end

-- Waits for text (plain) and returns everything up to its end since the last expectation. Raises what came instead after some seconds.
function Pty:expect(text, seconds)
  local deadline = lib.cpu.ty_now() + (seconds or 10)
  while true do
    local _, stop = self.seen:find(text, 1, true)
    if stop then
      local before = self.seen:sub(1, stop)
      self.seen = self.seen:sub(stop + 1)
      return before
    end
    if not read_some(self, 20) or lib.cpu.ty_now() > deadline then
      error(('expected %q, got %q'):format(text, self.seen), 2)
    end
  end
end

-- Waits for the end and returns the exit status (128 + signal for a killed one) and all output.
function Pty:finish(seconds)
  local status = ffi.new('int[1]')
  local deadline = lib.cpu.ty_now() + (seconds or 10)
  while read_some(self, 20) do
    if lib.cpu.ty_now() > deadline then
      C.kill(self.process, SIGKILL)
      C.waitpid(self.process, status, 0)
      C.close(self.fd)
      error(('did not end; the last it said was %q'):format(self.seen), 2)
    end
  end
  C.waitpid(self.process, status, 0)
  C.close(self.fd)
  local signal = status[0] % 128
  return signal > 0 and 128 + signal or math.floor(status[0] / 256), self.all
end

return { start = start }
