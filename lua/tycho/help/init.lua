-- What a name means, from the comments above functions, the heads of files, the records of ops, the rows of map.def and the keys of settings. Used by
-- the prompt and by whatever writes the API reference.
--   help.find(environment, text)   an entry: {name, signature, text, path, line, last (of its source; nil: the whole file)}
--   help.of(value [, name])        the same for a value
--   help.search(words)             all entries that speak of the words
local lfs = require 'lfs'
local comments = require 'tycho.help.comments'
local nearest = require 'tycho.nearest'

local M = {}

local root = package.loaded['tycho.root'] or require('tycho.lib').root

-- ---- files, read once for each version of them ----

local sources = {}
local function source_of(path)
  local changed = lfs.attributes(path, 'modification')
  local known = sources[path]
  if known and known.changed == changed then return known end
  known = comments.read(path)
  if known then known.changed = changed end
  sources[path] = known
  return known
end

local function lua_files(folder, out)
  if lfs.attributes(folder, 'mode') ~= 'directory' then return out end
  for name in lfs.dir(folder) do
    local path = folder .. '/' .. name
    if name:match('^[^.].*%.lua$') then
      out[#out + 1] = path
    elseif not name:match('^%.') and lfs.attributes(path, 'mode') == 'directory' then
      lua_files(path, out)
    end
  end
  return out
end

-- All Lua files of the framework and the experiments, sorted.
function M.files()
  local out = lua_files(root .. '/experiments', lua_files(root .. '/lua/tycho', {}))
  table.sort(out)
  return out
end

-- 'tycho.nn.Linear' for the file of that module, 'experiments.main' for a script.
function M.module_name(path)
  return (path:sub(#root + 2):gsub('^lua/', ''):gsub('%.lua$', ''):gsub('/init$', ''):gsub('/', '.'))
end

-- path below the project, as a reader would type it.
function M.display(path)
  return path:sub(1, #root + 1) == root .. '/' and path:sub(#root + 2) or path
end

-- ---- entries ----

-- The signature that a text begins with, as op files do: 'sum(x, dims, keepdim): over one dim'.
local function leading_signature(text, name) return text:match('^(' .. name .. '%b()):?%s*(.*)$') end

-- A file that is one thing: an op, a loss, a layer.
local function entry_of_file(path)
  local source = source_of(path)
  if not source then return nil end
  local signature, text = leading_signature(source.head, source.stem)
  if not signature then
    for _, entry in ipairs(source.entries) do
      if entry.name == source.stem .. ':init' or entry.name == source.stem then signature = source.stem .. entry.parameters end
    end
  end
  return { name = source.stem, signature = signature or M.module_name(path), text = text or source.head, path = path, line = 1 }
end

local function entry_of_row(row)
  local arguments = row.arity == 1 and 'x' or 'a, b'
  return { name = row.name, signature = ('%s(%s)'):format(row.name, arguments), path = root .. '/csrc/map.def',
    pattern = ('MAP%d(%s,'):format(row.arity, row.name),
    text = ('Elementwise%s: %s\nderivative: %s'):format(row.arity == 1 and '' or ', a and b broadcast', row.forward,
      row.arity == 1 and row.da or row.da .. ' and ' .. row.db) }
end

-- The op of this name: a row of map.def or a file in ops/.
local function entry_of_op(name)
  local row = require('tycho.op').rows[name]
  if row then return entry_of_row(row) end
  return entry_of_file(('%s/lua/tycho/ops/%s.lua'):format(root, name))
end

local function upvalue(fn, wanted)
  for i = 1, 60 do
    local name, value = debug.getupvalue(fn, i)
    if not name then return nil end
    if name == wanted then return value end
  end
end

local function entry_of_function(fn, name)
  local info = debug.getinfo(fn, 'S')
  local path = info.source:match('^@(.*)$')
  if path and path:match('/tycho/op%.lua$') and type(upvalue(fn, 'name')) == 'string' then return entry_of_op(upvalue(fn, 'name')) end
  -- An op with a policy of mixed precision around it.
  if path and path:match('/tycho/autocast%.lua$') and type(upvalue(fn, 'fn')) == 'function' then return entry_of_function(upvalue(fn, 'fn'), name) end
  local names = {}
  for i = 1, info.what == 'C' and 0 or 20 do
    local parameter = debug.getlocal(fn, i)
    if not parameter then break end
    names[i] = parameter
  end
  if debug.getinfo(fn, 'u').isvararg then names[#names + 1] = '...' end
  local short = name and name:match('[%w_]+$')
  local entry = { name = short or '?', signature = ('%s(%s)'):format(short or 'function', table.concat(names, ', ')), text = '', path = path,
    line = info.linedefined, last = info.lastlinedefined, fn = fn }
  local source = path and source_of(path)
  if not source then return entry end
  for _, known in ipairs(source.entries) do
    if known.line == info.linedefined then
      entry.text = known.text
      if known.parameters then entry.signature = known.name .. known.parameters end
      if known.name == source.stem and known.text == '' then
        local signature, text = leading_signature(source.head, source.stem)
        entry.signature, entry.text = signature or entry.signature, text or source.head
      end
      return entry
    end
  end
  -- A composite op and other functions inside a table that a file returns.
  local whole = path:match('/ops/[%w_]+%.lua$') and entry_of_file(path)
  return whole or entry
end

-- The file of a module that is loaded, or nil.
local function file_of_module(value)
  for name, module in pairs(package.loaded) do
    if module == value and type(name) == 'string' then
      local path = package.searchpath(name, package.path)
      if path then return path end
    end
  end
end

-- The entry of a function or of a module; nil for other values.
function M.of(value, name)
  if type(value) == 'function' then return entry_of_function(value, name) end
  if type(value) == 'table' then
    local path = file_of_module(value)
    if path then return entry_of_file(path) end
    local class = getmetatable(value)
    class = type(class) == 'table' and type(class.__index) == 'table' and class.__index
    path = class and file_of_module(class)
    if path then return entry_of_file(path) end
  end
end

-- Keys of the settings files: name -> {meaning, value, where}.
local function settings()
  local out = {}
  for _, file in ipairs { 'config.yml', 'eval_config.yml', 'demo.yml' } do
    local path = ('%s/experiments/%s'):format(root, file)
    local keys, node = require 'tycho.config.keys', require 'tycho.config.node'
    local ok, tree = pcall(require('tycho.config.file').read, path)
    for _, key in ipairs(ok and keys.all(tree) or {}) do
      local item = keys.find(tree, key)
      if not out[key] and item.kind ~= 'map' then
        local where, line = (item.where or ''):match('^(.*):(%d+)$')
        out[key] = { name = key, signature = ('%s: %s'):format(key, node.inline(item)), text = item.meaning or '', path = where or path,
          line = tonumber(line), last = tonumber(line) }
      end
    end
  end
  return out
end
M.settings = settings

-- A command of the prompt, ':bench' or 'bench'.
local function entry_of_command(name)
  local path = ('%s/lua/tycho/repl/commands/%s.lua'):format(root, name:gsub('^:', ''))
  if not name:match('^:?%l+$') or not lfs.attributes(path) then return nil end
  local entry = entry_of_file(path)
  entry.signature = ':' .. entry.name
  return entry
end

local folders = { 'ops', 'nn', 'loss', 'optim', 'io', 'data', 'train', '' }

-- The value of names joined by dots and colons, or nil.
local function value_of(environment, text)
  local value = environment
  for part in text:gmatch('[%a_][%w_]*') do
    local ok, found = pcall(function() return value[part] end)
    if not ok or found == nil then return nil end
    value = found
  end
  return value
end
M.value_of = value_of

-- The entry for a name as it is typed; nil, and the nearest name that there is, for one that nobody knows.
function M.find(environment, text)
  if text:match('^:') then return entry_of_command(text) end
  local value = text:match('^[%a_][%w_.:]*$') and value_of(environment, text)
  local entry = value ~= nil and M.of(value, text)
  if entry then return entry end
  local short = text:match('[%w_]+$')
  if not short then return nil end
  if require('tycho.op').rows[short] then return entry_of_op(short) end
  for _, folder in ipairs(folders) do
    local path = ('%s/lua/tycho/%s/%s.lua'):format(root, folder, short):gsub('//', '/')
    if lfs.attributes(path, 'mode') == 'file' then return entry_of_file(path) end
  end
  local keys = settings()
  if keys[text] or keys[short] then return keys[text] or keys[short] end
  for _, path in ipairs(M.files()) do
    for _, known in ipairs(source_of(path).entries) do
      if not known.is_local and known.name:match('[%w_]+$') == short then
        return { name = short, signature = known.name .. (known.parameters or ''), text = known.text, path = path, line = known.line }
      end
    end
  end
  entry = entry_of_command(text)
  if entry then return entry end
  local names = {}
  for _, found in ipairs(M.all()) do
    names[#names + 1] = found.name:match('[%w_]+$')
    if names[#names] == short then return found end -- a module
  end
  return nil, nearest(short, names)
end

-- Every entry: rows of map.def, files, functions with a comment, settings. name is the full one: 'tycho.nn.Module.parameter'.
function M.all()
  local out = {}
  for name, row in pairs(require('tycho.op').rows) do
    local entry = entry_of_row(row)
    entry.name = 'tycho.' .. name
    out[#out + 1] = entry
  end
  for _, path in ipairs(M.files()) do
    local source, module = source_of(path), M.module_name(path):gsub('%.ops%.', '.')
    if source.head ~= '' then out[#out + 1] = { name = module, signature = module, text = source.head, path = path, line = 1 } end
    for _, known in ipairs(source.entries) do
      if not known.is_local and known.text ~= '' and known.name ~= source.stem then
        out[#out + 1] = { name = ('%s.%s'):format(module, known.name:gsub('^M%.', ''):gsub('^' .. source.stem .. ':', '')),
          signature = known.name .. (known.parameters or ''), text = known.text, path = path, line = known.line }
      end
    end
  end
  for _, entry in pairs(settings()) do out[#out + 1] = entry end
  table.sort(out, function(a, b) return a.name < b.name end)
  return out
end

-- Entries whose name or text holds every word of `words`; those with one in their name first.
function M.search(words)
  local named, others = {}, {}
  for _, entry in ipairs(M.all()) do
    local name, text, all, in_name = entry.name:lower(), entry.text:lower(), true, false
    for word in words:lower():gmatch('%S+') do
      local here = name:find(word, 1, true) ~= nil
      in_name = in_name or here
      all = all and (here or text:find(word, 1, true) ~= nil)
    end
    if all then table.insert(in_name and named or others, entry) end
  end
  for _, entry in ipairs(others) do named[#named + 1] = entry end
  return named
end

-- The lines of an entry's source: its function, its row, or its whole file.
function M.source(entry)
  local file = entry.path and io.open(entry.path, 'rb')
  if not file then return nil end
  local lines, number = {}, 0
  for line in file:lines() do
    number = number + 1
    if entry.pattern then
      if line:find(entry.pattern, 1, true) then lines[#lines + 1] = line end
    elseif number >= entry.line and number <= (entry.last or math.huge) then
      lines[#lines + 1] = line
    end
  end
  file:close()
  return lines
end

return M
