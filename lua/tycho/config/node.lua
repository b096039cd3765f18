-- Values of a configuration that remember more than a Lua table does: order, kind, meaning, and where they were written.
-- A node is { kind = 'integer' | 'number' | 'boolean' | 'string' | 'null' | 'list' | 'map', where =, meaning = } with
--   scalars:  value, and raw (the text as written)
--   lists:    items (Lua list of nodes)
--   maps:     keys (names in order), items (name -> node)
local is_utf8 = require 'tycho.io.utf8'

local M = { DEEPEST = 100 } -- of lists and groups within each other

local constants = { ['true'] = true, ['false'] = false }
local special = { nan = 0 / 0, ['.nan'] = 0 / 0 }
for _, name in ipairs { 'inf', '.inf' } do special[name], special['+' .. name], special['-' .. name] = math.huge, math.huge, -math.huge end

-- The node of an unquoted word: null, true, false, 1_000, 1e-3, inf, nan (letters of any case), else a string.
function M.scalar(text)
  local word = text:lower()
  if word == 'null' then return { kind = 'null', raw = text } end
  if constants[word] ~= nil then return { kind = 'boolean', value = constants[word], raw = text } end
  if special[word] then return { kind = 'number', value = special[word], raw = text } end
  local digits = text:gsub('(%d)_(%d)', '%1%2'):gsub('(%d)_(%d)', '%1%2')
  if digits:match('^[+-]?%d+$') then return { kind = 'integer', value = tonumber((digits:gsub('^%+', ''))), raw = text } end
  local mantissa = digits:match('^[+-]?([%d.]+)$') or digits:match('^[+-]?([%d.]+)[eE][+-]?%d+$')
  if mantissa and mantissa:match('^%d*%.?%d*$') and mantissa:match('%d') then
    return { kind = 'number', value = tonumber((digits:gsub('^%+', ''))), raw = text }
  end
  return M.string(text)
end

-- The node of a text. Raises for one that no YAML file can hold.
function M.string(text)
  if text:find('%z') or not is_utf8(text) then
    error(("'%s' cannot be a setting: expected UTF-8 text without zero bytes"):format((text:gsub('[^\32-\126]', '?'))), 0)
  end
  return { kind = 'string', value = text, raw = text }
end

function M.map() return { kind = 'map', keys = {}, items = {} } end

-- Sets a key of a map, at the end when it is new; node nil removes it.
function M.set(map, key, node)
  if node == nil then
    for i, name in ipairs(map.keys) do
      if name == key then table.remove(map.keys, i) break end
    end
  elseif not map.items[key] then
    table.insert(map.keys, key)
  end
  map.items[key] = node
end

-- The node of a Lua value. Names of a table are sorted, because a Lua table has no order; an empty table is a list.
function M.from(value)
  if value == nil then return { kind = 'null', raw = 'null' } end
  if type(value) == 'boolean' then return { kind = 'boolean', value = value, raw = tostring(value) } end
  if type(value) == 'number' then
    return { kind = value == math.floor(value) and 'integer' or 'number', value = value, raw = tostring(value) }
  end
  if type(value) ~= 'table' then return M.string(tostring(value)) end
  if next(value) == nil or value[1] ~= nil then
    local list = { kind = 'list', items = {} }
    for i, item in ipairs(value) do list.items[i] = M.from(item) end
    return list
  end
  local map, names = M.map(), {}
  for name in pairs(value) do names[#names + 1] = tostring(name) end
  table.sort(names)
  for _, name in ipairs(names) do M.set(map, name, M.from(value[name])) end
  return map
end

-- The Lua value of a node; null is nil (left out of maps).
function M.plain(node)
  if node.kind == 'list' then
    local list = {}
    for i, item in ipairs(node.items) do list[i] = M.plain(item) end
    return list
  elseif node.kind == 'map' then
    local map = {}
    for _, key in ipairs(node.keys) do map[key] = M.plain(node.items[key]) end
    return map
  end
  return node.value
end

local function number_text(x)
  if x ~= x then return '.nan' end
  if x == math.huge then return '.inf' end
  if x == -math.huge then return '-.inf' end
  for digits = 6, 17 do
    local text = ('%.' .. digits .. 'g'):format(x)
    if tonumber(text) == x then return text end
  end
end

local yaml_words = { yes = true, no = true, on = true, off = true, y = true, n = true, ['~'] = true, [''] = true }
-- Characters that YAML takes for line breaks or refuses: control characters, U+2028 and U+2029, U+FEFF, U+FFFE and U+FFFF.
local odd = { '%c', '\194[\128-\159]', '\226\128[\168\169]', '\239\187\191', '\239\191[\190\191]' }
local breaks = { ['\n'] = '\\n', ['\t'] = '\\t', ['\r'] = '\\r' }
local function escape(character)
  local a, b, c = character:byte(1, 3)
  return breaks[character] or ('\\u%04x'):format(c and a % 16 * 4096 + b % 64 * 64 + c % 64 or b or a)
end

local function string_text(text)
  local quoted, has_odd = text:gsub('[\\"]', '\\%0'), false
  for _, characters in ipairs(odd) do
    local count
    quoted, count = quoted:gsub(characters, escape)
    has_odd = has_odd or count > 0
  end
  local plain = not has_odd and M.scalar(text).kind == 'string' and not yaml_words[text:lower()] and not text:find('["\'#{}%[%],&*!|>%%@`]')
    and not text:find('^0[xX]%x+$') and not text:find(':[^%w/]') and not text:find('[:%s]$') and not text:find('^[%s?:.-]') and text ~= '<<'
  return (plain or text:match('^<[%w_]+>$')) and text or '"' .. quoted .. '"'
end

-- The node's value as one line of YAML.
function M.inline(node)
  if node.kind == 'null' then return 'null' end
  if node.kind == 'boolean' then return tostring(node.value) end
  if node.kind == 'string' then return string_text(node.value) end
  if node.kind == 'list' then
    local parts = {}
    for i, item in ipairs(node.items) do parts[i] = M.inline(item) end
    return '[' .. table.concat(parts, ', ') .. ']'
  elseif node.kind == 'map' then
    local parts = {}
    for i, key in ipairs(node.keys) do parts[i] = string_text(key) .. ': ' .. M.inline(node.items[key]) end
    return '{' .. table.concat(parts, ', ') .. '}'
  end
  return number_text(node.value)
end

-- A map as block YAML, keys in order.
function M.yaml(map, indent)
  indent = indent or ''
  local lines = {}
  for _, key in ipairs(map.keys) do
    local node = map.items[key]
    if node.kind == 'map' and node.keys[1] then
      lines[#lines + 1] = ('%s%s:\n%s'):format(indent, string_text(key), M.yaml(node, indent .. '  '))
    else
      lines[#lines + 1] = ('%s%s: %s\n'):format(indent, string_text(key), M.inline(node))
    end
  end
  return table.concat(lines)
end

return M
