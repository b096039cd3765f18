-- Calls fn(...) without what it writes to stderr. Returns what it returns.
local stderr_to = require 'spec.stderr_to'

return function(fn, ...) return stderr_to('/dev/null', fn, ...) end
