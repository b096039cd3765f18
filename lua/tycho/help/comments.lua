-- What the comments of a Lua file say: its head, and a record for every function or field with a comment above it. Read from the text alone, nothing
-- runs. The help of the prompt and the API reference are made of these.
local M = {}

-- The name and the parameters that a line defines, or nil. file: name of the file, for 'return function'.
local patterns = {
  '^%s*local%s+function%s+([%w_]+)%s*(%b())',
  '^%s*function%s+([%w_.:]+)%s*(%b())',
  '^%s*local%s+([%w_]+)%s*=%s*function%s*(%b())',
  '^%s*([%w_.]+)%s*=%s*function%s*(%b())',
}
local function definition(line, stem)
  for i, pattern in ipairs(patterns) do
    local name, parameters = line:match(pattern)
    if name then return name, parameters, i == 1 or i == 3 end
  end
  local parameters = line:match('^return%s+function%s*(%b())')
  if parameters then return stem, parameters, false end
  local field = line:match('^([%a_][%w_]*%.[%w_.]+)%s*=[^=]')
  if field then return field, nil, false end
end

local function read_lines(path)
  local file = io.open(path, 'rb')
  if not file then return nil end
  local lines = {}
  for line in ((file:read('*a') or ''):gsub('\r', '') .. '\n'):gmatch('([^\n]*)\n') do lines[#lines + 1] = line end
  file:close()
  return lines
end

-- The text of a comment block: its lines without dashes.
local function comment_of(line) return line:match('^%s*%-%-%s?(.*)$') end

-- Returns {path, stem, lines (list), head (text, '' for none), entries (list of {name, parameters (text, nil for a field), text (the comment, ''
-- for none), line, path, is_local})}, or nil when there is no such file.
function M.read(path)
  local lines = read_lines(path)
  if not lines then return nil end
  local source = { path = path, stem = path:match('([^/]*)%.lua$') or path:match('[^/]*$'), lines = lines, head = '', entries = {} }
  local block, begins = {}, 1
  for number, line in ipairs(lines) do
    local text = comment_of(line)
    if text and not text:match('^%-%-%-%-') then
      if #block == 0 then begins = number end
      block[#block + 1] = text
    else
      local name, parameters, is_local = definition(line, source.stem)
      local is_head = begins == 1 and #block > 0
      if is_head then source.head = table.concat(block, '\n') end
      if name then
        table.insert(source.entries, { name = name, parameters = parameters, text = is_head and '' or table.concat(block, '\n'), line = number,
          path = path, is_local = is_local })
      end
      block = {}
    end
  end
  return source
end

-- The first sentence of a comment.
function M.summary(text)
  text = text:gsub('\n%s*', ' ')
  return text:match('^(.-[.:])%s') or text
end

return M
