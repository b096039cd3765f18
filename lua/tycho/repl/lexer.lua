-- Lua text as tokens, also where it is unfinished: for locals that stay, for completion inside strings, and for colours.
local M = {}

local keywords = {}
for word in ('and break do else elseif end false for function goto if in local nil not or repeat return then true until while'):gmatch '%a+' do
  keywords[word] = true
end
M.keywords = keywords

-- The end of a quoted string that begins at position i, and whether it is closed.
local function quoted(text, i)
  local quote, k = text:sub(i, i), i + 1
  while k <= #text do
    local c = text:sub(k, k)
    if c == quote then return k, true end
    if c == '\n' then return k - 1, false end
    k = k + (c == '\\' and 2 or 1)
  end
  return #text, false
end

-- The token that begins at position i: its kind (space, comment, string, number, name, keyword or symbol), its last position, and false for a
-- string or comment that goes on beyond the text.
local function token(text, i)
  local stop = text:match('^%s+()', i)
  if stop then return 'space', stop - 1, true end
  local behind = text:match('^%-%-()', i)
  local level = text:match('^%[(=*)%[', behind or i)
  if level then
    local _, last = text:find(']' .. level .. ']', i, true)
    return behind and 'comment' or 'string', last or #text, last ~= nil
  end
  if behind then return 'comment', (text:find('\n', i, true) or #text + 1) - 1, true end
  if text:match('^["\']', i) then
    local last, closed = quoted(text, i)
    return 'string', last, closed
  end
  local word = text:match('^[%a_][%w_]*', i)
  if word then return keywords[word] and 'keyword' or 'name', i + #word - 1, true end
  local number = text:match('^0[xX][%x.]+', i) or text:match('^%.?%d[%w.]*[eE][+-]%d+', i) or text:match('^%.?%d[%w.]*', i)
  if number then return 'number', i + #number - 1, true end
  return 'symbol', i, true
end

-- for kind, first, last, closed in lexer.tokens(text)
function M.tokens(text)
  local at = 1
  return function()
    if at > #text then return nil end
    local first = at
    local kind, last, closed = token(text, first)
    at = last + 1
    return kind, first, last, closed
  end
end

return M
