-- Sets a variable of this process's environment and of its children's; nil: there is none of that name. Returns what it was before.
local ffi = require 'ffi'
ffi.cdef 'int setenv(const char *name, const char *value, int overwrite); int unsetenv(const char *name);'

return function(name, value)
  local before = os.getenv(name)
  if value then ffi.C.setenv(name, value, 1) else ffi.C.unsetenv(name) end
  return before
end
