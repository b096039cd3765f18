-- Reads a YAML file into nodes (tycho.config.node): order kept, duplicate keys refused, each key with its line and comment.
-- Plain data only: one document, no anchors, no tags.
local parser = require('yaml').parser
local node = require 'tycho.config.node'

local M = {}

local words = { yes = true, on = true, no = false, off = false }
local numbers = { ['.inf'] = 'inf', ['-.inf'] = '-inf', ['+.inf'] = 'inf', ['.nan'] = 'nan' }

-- YAML 1.1 has more words for true, false, null and infinity than the command line.
local function plain_scalar(text)
  local word = text:lower()
  if words[word] ~= nil then return { kind = 'boolean', value = words[word], raw = text } end
  if word == '' or word == '~' then return { kind = 'null', raw = text } end
  if word:match('^0x%x+$') then return { kind = 'integer', value = tonumber(word), raw = text } end
  if word == 'inf' or word == 'nan' or word == '-inf' or word == '+inf' then return node.string(text) end
  return node.scalar(numbers[word] or text)
end

local function split_lines(text)
  local lines = {}
  for line in (text .. '\n'):gmatch('(.-)\r?\n') do lines[#lines + 1] = line end
  return lines
end

-- What a key means: the comment behind its value, else the comment line above it.
local function comment(lines, line, column)
  local behind = lines[line] and lines[line]:sub(column + 1):match('^%s*#+%s*(.-)%s*$')
  if behind then return behind end
  local above = lines[line - 1] and lines[line - 1]:match('^%s*#%s*(.-)%s*$')
  return above and not above:match('^[-=#]') and above or nil
end

-- text: YAML whose top is a map (or nothing); name: what messages call it.
function M.parse(text, name)
  local lines = split_lines(text)
  local next_event = parser(text)

  -- The parser counts lines and columns from 0.
  local function line_of(event) return event.start_mark.line + 1 end
  local function fail(event, message) error(('%s, line %d: %s'):format(name, line_of(event), message), 0) end
  local function advance()
    local ok, event = pcall(next_event)
    if not ok then error(('%s is not valid YAML: %s'):format(name, (tostring(event):gsub('^[^\n]-:%d+: ', ''):gsub('%s+', ' '))), 0) end
    return event
  end

  local read
  local function read_map(depth)
    local map = node.map()
    while true do
      local key = advance()
      if key.type == 'MAPPING_END' then return map end
      if key.type ~= 'SCALAR' then fail(key, 'a key must be a word') end
      if map.items[key.value] then
        fail(key, ("key '%s' is already defined at %s; remove one"):format(key.value, map.items[key.value].where))
      end
      local first = advance()
      local value, last = read(first, depth)
      value.where = ('%s:%d'):format(name, line_of(key))
      local same_line = last.end_mark.line == key.start_mark.line and value.kind ~= 'map'
      value.meaning = comment(lines, line_of(key), same_line and last.end_mark.column or key.end_mark.column + 1)
      node.set(map, key.value, value)
    end
  end
  local function read_list(depth)
    local list = { kind = 'list', items = {} }
    while true do
      local event = advance()
      if event.type == 'SEQUENCE_END' then return list, event end
      local item = read(event, depth)
      if item.kind == 'null' then fail(event, 'a list may not hold null') end
      table.insert(list.items, item)
    end
  end
  -- Returns the node that begins with event, and its last event.
  function read(event, depth)
    if event.tag then fail(event, 'tags such as !!str are not supported') end
    if depth > node.DEEPEST then fail(event, ('lists and groups are nested deeper than %d'):format(node.DEEPEST)) end
    if event.type == 'SCALAR' then
      return event.style == 'PLAIN' and plain_scalar(event.value) or node.string(event.value), event
    elseif event.type == 'MAPPING_START' then
      return read_map(depth + 1), event
    elseif event.type == 'SEQUENCE_START' then
      return read_list(depth + 1)
    end
    fail(event, 'anchors and aliases are not supported')
  end

  advance() -- the stream begins
  if advance().type == 'STREAM_END' then return node.map() end
  local event = advance()
  local is_empty = event.type == 'SCALAR' and event.value == ''
  if event.type ~= 'MAPPING_START' and not is_empty then fail(event, 'expected key: value lines') end
  local tree = is_empty and node.map() or read(event, 0)
  advance() -- the document ends
  event = advance()
  if event.type ~= 'STREAM_END' then fail(event, 'a second document begins; a file of settings holds one') end
  return tree
end

function M.read(path, name)
  local file, message = io.open(path, 'r')
  if not file then error(('cannot read %s: %s'):format(name or path, (message:gsub('^.*: ', ''))), 0) end
  local text = file:read('*a')
  file:close()
  if not text then error(('cannot read %s: it is a folder'):format(name or path), 0) end
  return M.parse(text, name or path)
end

return M
