-- From typed text to values: expressions without 'return', locals that stay, unfinished input. Knows no terminal.
local M = {}

-- An environment in which assignments of the session live; everything global is visible.
function M.environment()
  return setmetatable({}, { __index = _G })
end

-- A local at the prompt would vanish with its line, so it becomes a variable of the session.
local function keep_locals(text)
  local rest = text:match('^%s*local%s+(function%s+[%a_].*)$')
  if rest then return rest end
  local names, values = text:match('^%s*local%s+([%a_][%w_,%s]-)%s*(=.*)$')
  if names then return names .. ' ' .. values end
  names = text:match('^%s*local%s+([%a_][%w_,%s]-)%s*$')
  if names then return names .. ' = nil' end
  return text
end

-- A function of the text, or nil and a message, or nil and true when more lines are needed.
function M.compile(text, environment)
  local chunk, message = loadstring('return ' .. text, '=prompt')
  if not chunk then
    local unfinished = message:match("near '<eof>'$")
    chunk, message = loadstring(keep_locals(text), '=prompt')
    if not chunk then
      if unfinished or message:match("near '<eof>'$") then return nil, true end
      return nil, message
    end
  end
  return setfenv(chunk, environment)
end

-- Runs a compiled chunk: true and its results packed as {n =, ...}, or false, the message and where it happened.
function M.run(chunk)
  local trace
  local function handler(message)
    local lib = package.loaded['tycho.lib']
    local remembered = type(lib) == 'table' and lib.trace
    trace = remembered and remembered.message == message and remembered.text or debug.traceback(message, 2)
    return message
  end
  local results = { xpcall(chunk, handler) }
  local n = table.maxn(results)
  if results[1] then return true, { n = n - 1, unpack(results, 2, n) } end
  local lines = {}
  for line in tostring(trace):gmatch('[^\n]+') do
    if line:find('repl/', 1, true) or line:find('launch.lua', 1, true) then break end
    if not line:find('[C]: in function', 1, true) then lines[#lines + 1] = line end
  end
  return false, tostring(results[2]), lines
end

return M
