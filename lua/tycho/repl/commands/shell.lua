-- !line: runs a line of the shell
local lib = require 'tycho.lib'

-- What the line printed, and its exit status, for a prompt whose reader is in another process.
local function capture(line)
  local pipe = assert(io.popen(('( %s\n) 2>&1 </dev/null; printf "\\n%%d" $?'):format(line)))
  local text, status = pipe:read('*a'):match('^(.*)\n(%d+)$')
  pipe:close()
  return text, tonumber(status)
end

return function(session, line)
  if line == '' then error('! needs a line for the shell, as in !ls', 0) end
  io.flush()
  local mode = lib.on_interrupt(nil)
  local text, status
  if session.is_remote then text, status = capture(line) else status = math.floor(os.execute(line) / 256) end
  lib.on_interrupt(mode)
  if text and text ~= '' then session:print((text:gsub('\n$', ''))) end
  if status ~= 0 then error(('exit status %d'):format(status), 0) end
end
