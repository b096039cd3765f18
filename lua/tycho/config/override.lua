-- The grammar of key=value on the command line, after Hydra's: words, numbers, quoted strings, [lists] and {maps}.
-- Knows nothing of which keys exist.
local node = require 'tycho.config.node'

local M = {}

local function trim(text) return (text:match('^%s*(.-)%s*$')) end

local function fail(text, message) error(("in '%s': %s"):format(text, message), 0) end

local parse_value

-- A quoted string that begins at position i. Returns the node and the position behind it.
local function parse_quoted(text, i)
  local quote = text:sub(i, i)
  local out, k = {}, i + 1
  while k <= #text do
    local c = text:sub(k, k)
    local following = text:sub(k + 1, k + 1)
    if c == '\\' and (following == quote or following == '\\') then
      out[#out + 1] = following
      k = k + 2
    elseif c == quote then
      return node.string(table.concat(out)), k + 1
    else
      out[#out + 1] = c
      k = k + 1
    end
  end
  fail(text, ('the quote %s is not closed'):format(quote))
end

-- An unquoted word up to one of the stops (a character class). A backslash takes the next character as it is; ${...} is taken whole.
local function parse_word(text, i, stops)
  local out, k, escaped = {}, i, false
  while k <= #text do
    local c = text:sub(k, k)
    local reference = text:match('^%$%b{}', k)
    if reference then
      out[#out + 1] = reference
      k = k + #reference
    elseif c == '\\' and text:sub(k + 1, k + 1):match('[\\,=%[%]{}:() ]') then
      out[#out + 1] = text:sub(k + 1, k + 1)
      escaped = true
      k = k + 2
    elseif stops and c:match(stops) then
      break
    else
      out[#out + 1] = c
      k = k + 1
    end
  end
  local word = trim(table.concat(out))
  return escaped and node.string(word) or node.scalar(word), k
end

local function skip_blanks(text, i) return text:match('^%s*()', i) end

local function parse_list(text, i, depth)
  local list = { kind = 'list', items = {} }
  i = skip_blanks(text, i + 1)
  if text:sub(i, i) == ']' then return list, i + 1 end
  while true do
    local item
    item, i = parse_value(text, i, '[,%]]', depth)
    if item.kind == 'null' then fail(text, 'a list may not hold null') end
    if item.kind == 'string' and item.value == '' and item.raw == '' and not item.quoted then
      fail(text, 'a list entry is empty')
    end
    table.insert(list.items, item)
    i = skip_blanks(text, i)
    local c = text:sub(i, i)
    if c == ']' then return list, i + 1 end
    if c ~= ',' then fail(text, "a list is not closed; expected ',' or ']'") end
    i = i + 1
  end
end

local function parse_map(text, i, depth)
  local map = node.map()
  i = skip_blanks(text, i + 1)
  if text:sub(i, i) == '}' then return map, i + 1 end
  while true do
    local key, value
    key, i = parse_value(text, i, '[:,}]', depth)
    if text:sub(i, i) ~= ':' then fail(text, "in a {map} each entry is key:value") end
    value, i = parse_value(text, i + 1, '[,}]', depth)
    node.set(map, tostring(key.raw), value)
    i = skip_blanks(text, i)
    local c = text:sub(i, i)
    if c == '}' then return map, i + 1 end
    if c ~= ',' then fail(text, "a map is not closed; expected ',' or '}'") end
    i = i + 1
  end
end

function parse_value(text, i, stops, depth)
  if depth > node.DEEPEST then error(('lists and maps are nested deeper than %d'):format(node.DEEPEST), 0) end
  i = skip_blanks(text, i)
  local c = text:sub(i, i)
  if c == '"' or c == "'" then
    local value, behind = parse_quoted(text, i)
    value.quoted = true
    return value, behind
  elseif c == '[' then
    return parse_list(text, i, depth + 1)
  elseif c == '{' then
    return parse_map(text, i, depth + 1)
  end
  return parse_word(text, i, stops)
end

-- The node of the text behind '='.
function M.value(text)
  local value, behind = parse_value(text, 1, '[,]', 0)
  behind = skip_blanks(text, behind)
  if behind > #text then return value end
  if text:sub(behind, behind) == ',' then
    fail(text, ("a comma stands outside brackets; for a list write [%s], for text with a comma quote it as '\"%s\"'"):format(text, text))
  end
  fail(text, ("unexpected '%s'"):format(text:sub(behind)))
end

-- An argument as { mode = '' | '+' | '++' | '~', key = 'a.b', value = node or nil }; nil when it has another form.
function M.parse(argument)
  local text = trim(argument)
  local mode, key, value = text:match('^([+~]*)([%w_][%w_.@/-]*)%s*=(.*)$')
  if not mode then
    mode, key = text:match('^(~)([%w_][%w_.]*)$')
  end
  if not mode or not (mode == '' or mode == '+' or mode == '++' or mode == '~') then return nil end
  return { mode = mode, key = key, value = value and M.value(value) }
end

return M
