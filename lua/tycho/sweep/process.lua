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
int setenv(const char *name, const char *value, int overwrite);
int poll(void *files, unsigned long count, int milliseconds);
extern char **environ;
]]
pcall(ffi.cdef, 'char *strerror(int number);')
local C = ffi.C
local READ, APPEND = 0, 0x441 -- O_RDONLY; O_WRONLY, O_CREAT, O_APPEND
local SET_GROUP, AT_ONCE, TERMINATE = 2, 1, 15

local M = {}

-- Starts command (list of words, the first a path); what it says goes to the end of the file log. environment: name -> value, besides this
-- process's own. Returns its process id.
function M.start(command, log, environment)
  local argv = ffi.new('char *[?]', #command + 1)
  for i, word in ipairs(command) do argv[i - 1] = ffi.cast('char *', word) end
  for name, value in pairs(environment) do C.setenv(name, tostring(value), 1) end
  local actions, attributes, pid = ffi.new('tycho_spawn_options'), ffi.new('tycho_spawn_options'), ffi.new('int[1]')
  C.posix_spawn_file_actions_init(actions)
  C.posix_spawn_file_actions_addopen(actions, 0, '/dev/null', READ, 0)
  C.posix_spawn_file_actions_addopen(actions, 1, log, APPEND, 438)
  C.posix_spawn_file_actions_adddup2(actions, 1, 2)
  C.posix_spawnattr_init(attributes)
  C.posix_spawnattr_setflags(attributes, SET_GROUP)
  C.posix_spawnattr_setpgroup(attributes, 0)
  local status = C.posix_spawn(pid, command[1], actions, attributes, argv, C.environ)
  C.posix_spawn_file_actions_destroy(actions)
  C.posix_spawnattr_destroy(attributes)
  if status ~= 0 then error(('cannot start %s: %s'):format(command[1], ffi.string(C.strerror(status))), 0) end
  return pid[0]
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
