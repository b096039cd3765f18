-- Child processes: started with a log, looked at, asked to end. A child is in a process group of its own, so that Ctrl-C reaches this process alone.
local ffi = require 'ffi'
local bit = require 'bit'

ffi.cdef [[
typedef struct { char opaque[512]; } tycho_spawn_options;
int posix_spawn(int *pid, const char *path, const void *actions, const void *attributes, char *const argv[], char *const envp[]);
int posix_spawn_file_actions_init(void *actions);
int posix_spawn_file_actions_destroy(void *actions);
int posix_spawn_file_actions_addopen(void *actions, int fd, const char *path, int flags, unsigned mode);
int posix_spawn_file_actions_adddup2(void *actions, int from, int to);
int posix_spawnattr_init(void *attributes);
int posix_spawnattr_setflags(void *attributes, short flags);
int posix_spawnattr_setpgroup(void *attributes, int group);
int posix_spawnattr_destroy(void *attributes);
int waitpid(int pid, int *status, int options);
int kill(int pid, int signal);
int poll(void *files, unsigned long count, int milliseconds);
extern char **environ;
int getppid(void);
int prctl(int option, unsigned long argument, ...);
int unsetenv(const char *name);
]]
pcall(ffi.cdef, 'char *strerror(int number);')
pcall(ffi.cdef, 'int getpid(void);')
local C = ffi.C
local READ, APPEND = 0, 0x441 -- O_RDONLY; O_WRONLY, O_CREAT, O_APPEND
local SET_GROUP, AT_ONCE, TERMINATE = 2, 1, 15
local PARENT, PARENT_DEATH_SIGNAL = 'TYCHO_PARENT', 1

local M = {}

-- A C array of a list of texts, which must outlive it.
local function pointers(texts)
  local array = ffi.new('char *[?]', #texts + 1)
  for i, text in ipairs(texts) do array[i - 1] = ffi.cast('char *', text) end
  return array
end

-- NAME=value of this process's environment with some of them changed.
local function environment_with(changes)
  local list, i = {}, 0
  while C.environ[i] ~= nil do
    local text = ffi.string(C.environ[i])
    if changes[text:match('^[^=]*')] == nil then list[#list + 1] = text end
    i = i + 1
  end
  for name, value in pairs(changes) do list[#list + 1] = ('%s=%s'):format(name, value) end
  return list
end

-- Starts command (list of words, the first a path); what it says goes to the end of the file log. environment: name -> value, over this
-- process's own. Returns its process id. One that calls M.follow_parent is asked to end when this process ends, however that comes.
function M.start(command, log, environment)
  environment[PARENT] = C.getpid()
  local variables = environment_with(environment)
  local actions, attributes, pid = ffi.new('tycho_spawn_options'), ffi.new('tycho_spawn_options'), ffi.new('int[1]')
  C.posix_spawn_file_actions_init(actions)
  C.posix_spawn_file_actions_addopen(actions, 0, '/dev/null', READ, 0)
  C.posix_spawn_file_actions_addopen(actions, 1, log, APPEND, 438)
  C.posix_spawn_file_actions_adddup2(actions, 1, 2)
  C.posix_spawnattr_init(attributes)
  C.posix_spawnattr_setflags(attributes, SET_GROUP)
  C.posix_spawnattr_setpgroup(attributes, 0)
  local status = C.posix_spawn(pid, command[1], actions, attributes, pointers(command), pointers(variables))
  C.posix_spawn_file_actions_destroy(actions)
  C.posix_spawnattr_destroy(attributes)
  if status ~= 0 then error(('cannot start %s: %s'):format(command[1], ffi.string(C.strerror(status))), 0) end
  return pid[0]
end

-- In a process that M.start made: it will be terminated with the one that started it, also by a SIGKILL. Elsewhere nothing.
function M.follow_parent()
  local parent = tonumber(os.getenv(PARENT))
  if not parent then return end
  C.unsetenv(PARENT) -- it does not mean the children of this one
  C.prctl(PARENT_DEATH_SIGNAL, ffi.cast('unsigned long', TERMINATE))
  if C.getppid() ~= parent then error('the process that started this job has ended', 0) end
end

-- nil while pid runs; then what it ended with: 0, an exit status, or 'signal N'.
function M.ended(pid)
  local status = ffi.new('int[1]')
  if C.waitpid(pid, status, AT_ONCE) == 0 then return nil end
  local signal = bit.band(status[0], 127)
  return signal ~= 0 and ('signal %d'):format(signal) or bit.band(bit.rshift(status[0], 8), 255)
end

-- Asks pid to end in good order.
function M.terminate(pid) C.kill(pid, TERMINATE) end

function M.sleep(seconds) C.poll(nil, 0, seconds * 1000) end

return M
