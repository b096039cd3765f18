-- The message that fn(...) raises.
local assert = require 'luassert'

return function(fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok)
  return message
end
