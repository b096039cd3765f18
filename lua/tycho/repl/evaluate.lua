-- From typed text to values: expressions without 'return', locals that stay, unfinished input. Knows no terminal.
local M = {}

-- An environment in which assignments of the session live; everything global is visible.
function M.environment()
  return setmetatable({}, { __index = _G })
end

local opening = { ['function'] = true, ['do'] = true, ['then'] = true, ['repeat'] = true, ['else'] = true, ['('] = true, ['{'] = true, ['['] = true }
local closing = { ['end'] = true, ['until'] = true, ['elseif'] = true, ['else'] = true, [')'] = true, ['}'] = true, [']'] = true }

-- The position behind the comment, string, word or character that begins at position i, and its text when that is a word or character.
local function next_token(text, i)
  local comment = text:match('^%-%-()', i)
  local level = text:match('^%[(=*)%[', comment or i)
  if level then
    local _, stop = text:find(']' .. level .. ']', i, true)
    return (stop or #text) + 1
  end
  if comment then return (text:find('\n', i, true) or #text) + 1 end
  local quote = text:match('^["\']', i)
  if quote then
    local k = i + 1
    while k <= #text and text:sub(k, k) ~= quote do k = k + (text:sub(k, k) == '\\' and 2 or 1) end
    return k + 1
  end
  local word, behind = text:match('^([%a_][%w_]*)()', i)
  if word then return behind, word end
  return i + 1, text:sub(i, i)
end

-- A local at the prompt would vanish with its line, so those outside any block become variables of the session.
local function keep_locals(text)
  local out, i, depth = {}, 1, 0
  while i <= #text do
    local behind, token = next_token(text, i)
    if token == 'local' and depth == 0 then
      local names = text:match('^%s*([%a_][%w_]*[%w_%s,]*)', behind)
      local bare = names and not names:match('^function%s') and not text:match('^%s*=', behind + #text:match('^%s*', behind) + #names)
      if bare then
        -- 'local a, b' may be followed by another statement on the same line; only the list itself gets its nil.
        local list = names:match('^[%a_][%w_]*') or ''
        local at = #list + 1
        while true do
          local following, stop = names:match('^(%s*,%s*[%a_][%w_]*)()', at)
          if not following then break end
          list, at = list .. following, stop
        end
        behind = behind + #text:match('^%s*', behind) + #list
        out[#out + 1] = list .. ' = nil '
      end
    else
      out[#out + 1] = text:sub(i, behind - 1)
      if closing[token] then depth = depth - 1 end
      if opening[token] then depth = depth + 1 end
    end
    i = behind
  end
  return table.concat(out)
end

-- A function of the text, or nil and a message, or nil and true when more lines are needed.
function M.compile(text, environment)
  local chunk, message = loadstring('return ' .. text, '=prompt')
  if not chunk then
    local unfinished = message:match("near '<eof>'$")
    chunk, message = loadstring(text, '=prompt')
    if chunk then chunk = loadstring(keep_locals(text), '=prompt') or chunk end
    if not chunk then
      if unfinished or message:match("near '<eof>'$") then return nil, true end
      return nil, message
    end
  end
  return setfenv(chunk, environment)
end

local function pack(ok, ...)
  return ok, { n = select('#', ...), ... }
end

-- Runs a compiled chunk: true and its results packed as {n =, ...}, or false, the message and where it happened (a list of lines).
-- interrupted: asked now and then; true ends the chunk. Compiled loops are not asked, so the chunk itself is not compiled.
function M.run(chunk, interrupted)
  local trace
  local function handler(message)
    local lib = package.loaded['tycho.lib']
    local remembered = type(lib) == 'table' and lib.trace
    trace = remembered and remembered.message == message and remembered.text or debug.traceback(tostring(message), 2)
    return message
  end
  jit.off(chunk)
  debug.sethook(function()
    if interrupted() then error('interrupted', 0) end
  end, '', 1e5)
  local ok, results = pack(xpcall(chunk, handler))
  debug.sethook()
  if ok then return true, results end
  local lines = {}
  for line in trace:gmatch('[^\n]+') do
    if line:find('repl/', 1, true) or line:find('launch.lua', 1, true) then break end
    if not line:find('[C]: in function', 1, true) and not line:find('[builtin', 1, true) then lines[#lines + 1] = line end
  end
  if lines[#lines] == 'stack traceback:' then lines[#lines] = nil end
  return false, tostring(results[1]), lines
end

return M
