-- What could follow the text before the cursor: names of the session and globals, fields after '.', methods after ':', modules in require'',
-- file names and configuration keys in strings, commands after ':' at the beginning. Runs no code of the session but field access.
local lfs = require 'lfs'
local lexer = require 'tycho.repl.lexer'

local M = {}

-- A list of different words that begin with prefix.
local Words = {}
Words.__index = Words
local function new_words(prefix) return setmetatable({ prefix = prefix, seen = {}, list = {} }, Words) end
function Words:add(word)
  if word:sub(1, #self.prefix) == self.prefix and not self.seen[word] then
    self.seen[word] = true
    self.list[#self.list + 1] = word
  end
end
-- Keys that can stand behind a dot; those that begin with '_' are private unless asked for.
function Words:add_keys(t, accepts)
  if type(t) ~= 'table' then return end
  for key, value in pairs(t) do
    if type(key) == 'string' and key:match('^[%a_][%w_]*$') and (key:sub(1, 1) ~= '_' or self.prefix:sub(1, 1) == '_')
      and (not accepts or accepts(value)) then
      self:add(key)
    end
  end
end
function Words:result()
  table.sort(self.list)
  return self.list, self.prefix
end

-- ---- files, modules, settings ----

local function entries(folder)
  local out = {}
  if lfs.attributes(folder, 'mode') == 'directory' then
    for name in lfs.dir(folder) do
      if name ~= '.' and name ~= '..' then out[#out + 1] = name end
    end
  end
  return out
end

local function add_files(words, folder)
  for _, name in ipairs(entries(folder == '' and '.' or folder)) do
    if name:sub(1, 1) ~= '.' or words.prefix:sub(1, 1) == '.' then
      words:add(name .. (lfs.attributes(folder .. name, 'mode') == 'directory' and '/' or ''))
    end
  end
end

local function file_candidates(content)
  local folder, prefix = content:match('^(.*/)([^/]*)$')
  local words = new_words(prefix or content)
  local home = os.getenv('HOME')
  add_files(words, ((folder or ''):gsub('^~/', (home or '~'):gsub('%%', '%%%%') .. '/')))
  return words
end

local function module_candidates(content)
  local folder, prefix = content:match('^(.*%.)([^.]*)$')
  local words = new_words(prefix or content)
  for template in package.path:gmatch('[^;]+') do
    local path = template:match('^(.*)%?%.lua$')
    for _, name in ipairs(path and entries(path .. (folder or ''):gsub('%.', '/')) or {}) do
      local module = name:match('^([%w_]+)%.lua$')
      if module and module ~= 'init' then
        words:add(module)
      elseif name:match('^[%w_]+$') and lfs.attributes(path .. (folder or ''):gsub('%.', '/') .. name, 'mode') == 'directory' then
        words:add(name .. '.')
      end
    end
  end
  return words
end

local function add_settings(words)
  for key in pairs(require('tycho.help').settings()) do words:add(key .. '=') end
end

-- The words of a command's argument: its own, or file names and settings.
function M.arguments(text)
  local last = text:match('(%S*)$')
  local words = file_candidates(last)
  if not last:find('/', 1, true) and text:match('%S%s') then add_settings(words) end
  return words:result()
end

-- ---- fields and methods ----

local function is_callable(value)
  local meta = getmetatable(value)
  return type(value) == 'function' or type(meta) == 'table' and rawget(meta, '__call') ~= nil
end

-- Files of a folder of the framework are fields that load when first named.
local function add_modules(words, folder)
  for _, name in ipairs(entries(('%s/lua/tycho/%s'):format(require('tycho.lib').root, folder))) do
    local module = name:match('^([%a_][%w_]*)%.lua$')
    if module and module ~= 'init' then words:add(module) end
  end
end

local function add_ops(words)
  for _, name in ipairs(require('tycho.op').names()) do words:add(name) end
end

local framework_folders = { 'nn', 'loss', 'optim', 'data', 'io', 'train', 'plot', 'repl' }

local function add_framework(words)
  add_ops(words)
  add_modules(words, '')
  for _, name in ipairs(framework_folders) do words:add(name) end
end

local function add_tensor(words, methods_only)
  words:add_keys(require('tycho.tensor').Tensor)
  add_ops(words)
  if methods_only then return end
  for _, name in ipairs { 'shape', 'ndim', 'dtype', 'device', 'grad' } do words:add(name) end
end

-- The fields of a value and of what it inherits from; behind a colon only what can be called.
local function add_members(words, value, methods_only)
  if require('tycho.tensor').is_tensor(value) then return add_tensor(words, methods_only) end
  if type(value) == 'string' then return words:add_keys(string) end
  local tycho = package.loaded['tycho']
  if value == tycho and type(tycho) == 'table' then
    add_framework(words)
  elseif type(tycho) == 'table' then
    for _, name in ipairs(framework_folders) do
      if rawget(tycho, name) == value then add_modules(words, name) end
    end
  end
  local accepts = methods_only and is_callable or nil
  for _ = 1, 20 do
    words:add_keys(value, accepts)
    local meta = getmetatable(value)
    value = type(meta) == 'table' and rawget(meta, '__index')
    if type(value) ~= 'table' then break end
  end
end

-- The expression that ends the text: names, fields and fixed indices; and whether a call ends it, whose arguments are left out.
local function receiver(text)
  local stop, is_call = #text, false
  local call = text:match('^.*[%w_](%b())$') or text:match('^.*[%w_](%b{})$')
  if call then stop, is_call = stop - #call, true end
  local start = stop + 1
  while true do
    local index = text:sub(1, start - 1):match('%[%-?%d+%]$') or text:sub(1, start - 1):match('%[(["\'])[^"\'%[%]]*%1%]$')
      and text:sub(1, start - 1):match('%[[^%[%]]*%]$')
    local name = not index and text:sub(1, start - 1):match('[%a_][%w_]*$')
    if index then
      start = start - #index
    elseif name then
      start = start - #name
      local dot = text:sub(start - 1, start - 1)
      if dot ~= '.' and not (dot == ':' and is_call) then break end
      start = start - 1
    else
      return nil
    end
  end
  return text:sub(start, stop), is_call
end

local function evaluate(environment, expression)
  local chunk = loadstring('return ' .. expression:gsub(':', '.'))
  if not chunk then return nil end
  local ok, value = pcall(setfenv(chunk, environment))
  return ok and value or nil
end
M.evaluate = evaluate

local function member_candidates(environment, before, separator, prefix)
  local words, methods_only = new_words(prefix), separator == ':'
  local expression, is_call = receiver(before)
  if not expression then return words end
  local value = evaluate(environment, expression)
  if not is_call then
    if value ~= nil then add_members(words, value, methods_only) end
    return words
  end
  -- Nothing is called to complete its result: a class makes its instances, of other calls a tensor is the best guess.
  if type(value) == 'table' and rawget(value, 'instance') then
    add_members(words, value, methods_only)
  elseif type(value) == 'function' then
    add_tensor(words, methods_only)
  end
  return words
end

local function name_candidates(environment, prefix)
  local words = new_words(prefix)
  if prefix == '' then return words end
  local meta = getmetatable(environment)
  for _, name in ipairs(meta and meta.names and meta.names() or {}) do words:add(name) end
  words:add_keys(environment)
  words:add_keys(_G)
  words:add_keys(lexer.keywords)
  words:add 'tycho'
  return words
end

-- ---- where the cursor is ----

-- The content of a string that is open at the end of the text, and the text before it.
local function open_string(text)
  for kind, first, last, closed in lexer.tokens(text) do
    if kind == 'string' and not closed and last == #text then
      return text:sub(first):gsub('^%[=*%[', ''):gsub('^["\']', ''), text:sub(1, first - 1)
    end
  end
end

-- Candidates (whole words, sorted) for the word that ends text, and that word.
function M.candidates(environment, text)
  if text:match('^[:!?]') then return require('tycho.repl.commands').candidates(environment, text) end
  local content, before = open_string(text)
  if content then
    if before:match('require%s*%(?%s*$') then return module_candidates(content):result() end
    local words = file_candidates(content)
    if content:match('^[%a_]') and not content:find('/', 1, true) then add_settings(words) end
    return words:result()
  end
  local receiver_text, separator, prefix = text:match('^(.-)%s*([.:])([%a_]?[%w_]*)$')
  if receiver_text and not receiver_text:match('[.:]$') then
    return member_candidates(environment, receiver_text, separator, prefix):result()
  end
  return name_candidates(environment, text:match('[%a_][%w_]*$') or ''):result()
end

return M
