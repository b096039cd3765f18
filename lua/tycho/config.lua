-- Settings of a script: defaults from a YAML file or a Lua table, changed by key=value arguments in Hydra's manner.
-- Never changes the working folder, writes no file, and starts no sweep.
--
--   local cfg = config.load(root .. '/experiments/config.yml', arg)   -- cfg.epochs, cfg.wandb.project
--   local cfg = config.parse({ epochs = 10 }, arg)                    -- a comment behind each default is its help text
--
-- Arguments: key=value, a.b=value, +key=value (new key), ++key=value (new or not), ~key (remove), the last of equals wins;
-- --config-name NAME, --cfg job (print the settings and exit), --help (explain them and exit). A YAML file may begin with
-- 'base: other.yml': then it changes keys of that file. null is nil.
local lfs = require 'lfs'
local nearest = require 'tycho.nearest'
local node = require 'tycho.config.node'
local override = require 'tycho.config.override'
local yaml = require 'tycho.config.yaml'

local M = {}

local trees = setmetatable({}, { __mode = 'k' }) -- settings table -> its tree

local function note(message) io.stderr:write('tycho: ', message, '\n') end

-- ---- keys ----

local function split_key(key)
  local parts = {}
  for part in key:gmatch('[^.]+') do parts[#parts + 1] = part end
  return parts
end

-- Dotted names of all keys below map, maps included.
local function all_keys(map, prefix, out)
  out = out or {}
  for _, key in ipairs(map.keys) do
    local name = (prefix or '') .. key
    out[#out + 1] = name
    if map.items[key].kind == 'map' then all_keys(map.items[key], name .. '.', out) end
  end
  return out
end

local function find(tree, key)
  local current = tree
  for _, part in ipairs(split_key(key)) do
    current = current and current.kind == 'map' and current.items[part]
  end
  return current or nil
end

-- The map that holds key's last part, and that part. create: maps on the way are made.
local function parent(tree, key, create)
  local parts = split_key(key)
  local current = tree
  for i = 1, #parts - 1 do
    local below = current.items[parts[i]]
    if create and (not below or below.kind == 'null') then
      below = node.map()
      node.set(current, parts[i], below)
    end
    if not below or below.kind ~= 'map' then
      error(("cannot set '%s': '%s' is a value, not a group of keys"):format(key, table.concat(parts, '.', 1, i)), 0)
    end
    current = below
  end
  return current, parts[#parts]
end

local function at(n) return n.where and (' (%s)'):format(n.where) or '' end

-- advice: a last sentence.
local function fail_unknown(tree, key, advice)
  local near = nearest(key, all_keys(tree))
  local hint = near and ("did you mean '%s'%s? "):format(near, at(find(tree, near))) or ''
  error(("unknown key '%s'; %s%s"):format(key, hint, advice), 0)
end

-- ---- types ----

local described = {
  integer = 'a number', number = 'a number', boolean = 'true or false', string = 'text', list = 'a list', map = 'a group {key:value}',
}
local function element_kind(list)
  local kind = list.items[1] and list.items[1].kind
  for _, item in ipairs(list.items) do
    local this = item.kind
    if this == 'integer' then this = 'number' end
    if kind == 'integer' then kind = 'number' end
    if this ~= kind then return nil end
  end
  return kind == 'integer' and 'number' or kind
end

local function describe(n)
  local inner = n.kind == 'list' and element_kind(n)
  if inner == 'number' then return ('a list of numbers such as %s'):format(node.inline(n):gsub(', ', ',')) end
  return described[n.kind]
end

-- value as it is to be stored in place of default; an error where the kinds differ.
local function convert(key, value, default)
  if value.kind == 'null' or default.kind == 'null' or value.kind == default.kind and value.kind ~= 'list' then return value end
  local numeric = { integer = true, number = true }
  if numeric[value.kind] and numeric[default.kind] then return value end
  if default.kind == 'string' and value.raw then return node.string(value.raw) end
  if value.kind == 'list' and default.kind == 'list' then
    local kind = element_kind(default)
    if kind == nil or #value.items == 0 or element_kind(value) == kind then return value end
  end
  error(('%s must be %s, got %s%s; its default is %s%s'):format(key, describe(default), node.inline(value), at(value),
    node.inline(default), at(default)), 0)
end

-- ---- changes ----

-- Puts value at key. mode as in override.parse.
local function assign(tree, key, value, mode)
  local old = find(tree, key)
  if mode == '+' and old then
    error(("+%s: the key exists already%s; write %s=%s"):format(key, at(old), key, node.inline(value)), 0)
  end
  if mode == '' and not old then fail_unknown(tree, key, ('To add a key write +%s=%s'):format(key, node.inline(value))) end
  if value.kind == 'map' and old and old.kind == 'map' then
    for _, name in ipairs(value.keys) do assign(tree, key .. '.' .. name, value.items[name], mode) end
    return
  end
  local holder, name = parent(tree, key, mode ~= '')
  local default = old and (old.default or old)
  local where_set, meaning = value.where or 'the command line', value.meaning
  if default and mode ~= '++' then value = convert(key, value, default) end
  value.where, value.meaning, value.default = where_set, old and old.meaning or meaning, default
  node.set(holder, name, value)
end

local function remove(tree, key, value)
  local old = find(tree, key)
  if not old then fail_unknown(tree, key, '--help lists the keys') end
  if value and node.inline(value) ~= node.inline(old) then
    error(('~%s=%s: the value is %s'):format(key, node.inline(value), node.inline(old)), 0)
  end
  local holder, name = parent(tree, key)
  node.set(holder, name, nil)
end

-- Hydra's own settings steer a program that is not here; the reference's command lines may hold them.
local function is_foreign(key) return key:match('^hydra%.') ~= nil end

local function apply(tree, argument)
  local change = override.parse(argument)
  if not change then
    local key, value = argument:match('^%-%-?([%w_.]+)=?(.*)$')
    if key and find(tree, key) then
      error(("'%s' is not key=value; write %s=%s"):format(argument, key, value ~= '' and value or 'VALUE'), 0)
    end
    local hint = find(tree, argument) and ('; write %s=VALUE'):format(argument) or '; --help lists the keys'
    error(("'%s' is not key=value%s"):format(argument, hint), 0)
  end
  if change.mode == '~' then
    remove(tree, change.key, change.value)
  elseif is_foreign(change.key) and change.mode == '' and not find(tree, change.key) then
    note(('%s has no effect: Hydra is not used; run folders are made below out='):format(change.key))
  else
    assign(tree, change.key, change.value, change.mode)
  end
end

-- ---- arguments ----

local function count(text, character) return select(2, text:gsub('%' .. character, '')) end

-- Separates options from changes. A list whose blanks the shell took for separators is put together again.
local function read_arguments(args)
  local request = { changes = {} }
  local i = 1
  local function operand(option)
    i = i + 1
    if not args[i] then error(('%s needs a value'):format(option), 0) end
    return args[i]
  end
  while args[i] do
    local argument = args[i]
    local option, value = argument:match('^(%-%-[%w-]+)=(.*)$')
    option = option or argument
    if argument:match('^%s*$') then
      note('ignored a blank argument: a blank follows a backslash at the end of a line of the command')
    elseif option == '--config-name' or option == '-cn' then
      request.config_name = value or operand(option)
    elseif option == '--cfg' or option == '-c' then
      request.show = value or operand(option)
      if request.show ~= 'job' then error(("--cfg knows 'job' only, got '%s'"):format(request.show), 0) end
    elseif option == '--help' or option == '-h' then
      request.help = true
    else
      if argument:match('=%s*%[') then
        while count(argument, '[') > count(argument, ']') and args[i + 1] and not args[i + 1]:find('=') do
          i = i + 1
          argument = argument .. ' ' .. args[i]
        end
      end
      table.insert(request.changes, argument)
    end
    i = i + 1
  end
  return request
end

-- ---- files ----

-- path relative to the working folder where it lies below it, as a reader of a message would type it.
local function display(path)
  local here = lfs.currentdir() .. '/'
  if path:sub(1, #here) == here then return path:sub(#here + 1) end
  return (path:gsub('^%./', ''))
end

local function folder_of(path) return path:match('^(.*/)[^/]*$') or '' end

-- Reads a YAML file and, below it, the files that it is based on. seen guards against circles. A file may add keys to its
-- base; only one that looks like a slip of a base's key is refused.
local function read_file(path, seen)
  seen = seen or {}
  if seen[path] then error(("%s: 'base' leads back to itself"):format(display(path)), 0) end
  seen[path] = true
  local tree = yaml.read(path, display(path))
  local base = tree.items.base
  if not base then return tree end
  if base.kind ~= 'string' then error(('base must name a YAML file%s'):format(at(base)), 0) end
  node.set(tree, 'base', nil)
  local whole = read_file(folder_of(path) .. base.value, seen)
  local known = all_keys(whole)
  local function merge(map, prefix)
    for _, name in ipairs(map.keys) do
      local key, item = prefix .. name, map.items[name]
      local near, is_slip = nearest(key, known)
      if not find(whole, key) and is_slip then
        error(("unknown key '%s' (%s); did you mean '%s'?"):format(key, item.where, near), 0)
      elseif item.kind == 'map' and find(whole, key) then
        merge(item, key .. '.')
      else
        assign(whole, key, item, find(whole, key) and '' or '+')
      end
    end
  end
  merge(tree, '')
  return whole
end

local function named_file(path, name)
  local file = name:find('/', 1, true) and name or folder_of(path) .. name
  if not file:match('%.ya?ml$') then file = file .. (lfs.attributes(file .. '.yaml') and '.yaml' or '.yml') end
  if lfs.attributes(file) then return file end
  local names = {}
  local folder = folder_of(path) == '' and '.' or folder_of(path)
  for entry in lfs.dir(folder) do
    if entry:match('%.ya?ml$') then names[#names + 1] = entry end
  end
  table.sort(names)
  local near = nearest(name .. '.yml', names)
  error(('no configuration file %s; %s'):format(display(file), near and ("did you mean '%s'?"):format(near)
    or 'there are ' .. table.concat(names, ', ')), 0)
end

-- ---- help ----

local function help_rows(map, prefix, rows)
  for _, key in ipairs(map.keys) do
    local item = map.items[key]
    if item.kind == 'map' then
      help_rows(item, prefix .. key .. '.', rows)
    else
      table.insert(rows, { prefix .. key, item.kind == 'null' and 'any' or item.kind, node.inline(item), item.meaning or '' })
    end
  end
  return rows
end

local function print_help(tree, source)
  local rows = help_rows(tree, '', {})
  local width = { 0, 0, 0 }
  for _, row in ipairs(rows) do
    for i = 1, 3 do width[i] = math.min(math.max(width[i], #row[i]), 32) end
  end
  print(('usage: ./tycho %s [key=value ...] [--config-name NAME] [--cfg job] [--help]'):format(arg and arg[0] or 'FILE.lua'))
  print(('Keys, with type, value and meaning, from %s. Quote lists where the shell expands brackets: \'key=[1,2]\'.'):format(source))
  for _, row in ipairs(rows) do
    print((('  %%-%ds  %%-%ds  %%-%ds  %%s'):format(unpack(width)):format(unpack(row)):gsub('%s+$', '')))
  end
end

-- ---- the four functions ----

local function finish(tree, request, source)
  for _, change in ipairs(request.changes) do apply(tree, change) end
  if request.help or request.show then
    if request.help then print_help(tree, source) else io.write(node.yaml(tree)) end
    io.stdout:flush()
    os.exit(0)
  end
  local cfg = node.plain(tree)
  trees[cfg] = tree
  return cfg
end

-- Settings from the YAML file at path, changed by args (list of strings, e.g. arg).
function M.load(path, args)
  local request = read_arguments(args or {})
  local file = request.config_name and named_file(path, request.config_name) or path
  return finish(read_file(file), request, display(file))
end

-- Reads order, line and meaning of inline defaults from the text of the script: lines such as 'epochs = 10, -- passes over the data'.
local function annotate(map, level)
  local info = debug.getinfo(level + 1, 'S')
  local file = info.source:sub(1, 1) == '@' and io.open(info.source:sub(2), 'r')
  if not file then return end
  local line_of, number = {}, 0
  for line in file:lines() do
    number = number + 1
    local key, rest = line:match('^%s*([%a_][%w_]*)%s*=(.*)$')
    local item = key and map.items[key]
    if item and not line_of[key] then
      line_of[key] = number
      item.where = ('%s:%d'):format(display(info.source:sub(2)), number)
      item.meaning = rest:match(',?%s*%-%-%s*(.-)%s*$')
    end
  end
  file:close()
  table.sort(map.keys, function(a, b)
    local x, y = line_of[a] or math.huge, line_of[b] or math.huge
    if x ~= y then return x < y end
    return a < b
  end)
end

-- Settings from a table of defaults (one level of a key per line keeps its comment as help), changed by args.
function M.parse(defaults, args)
  local request = read_arguments(args or {})
  if request.config_name then error('--config-name: this script has no configuration files', 0) end
  local tree = node.from(defaults)
  if tree.kind ~= 'map' then tree = node.map() end
  annotate(tree, 2)
  return finish(tree, request, arg and arg[0] or 'the script')
end

-- YAML text of settings made here, in the order of the defaults' file, with the values that cfg has now. A plain table is sorted.
function M.dump(cfg)
  local tree = trees[cfg]
  if not tree then return node.yaml(node.from(cfg)) end
  local function current(map, values)
    local out, known = node.map(), {}
    for _, key in ipairs(map.keys) do
      local item, value = map.items[key], values[key]
      known[key] = true
      if item.kind == 'map' and type(value) == 'table' then
        node.set(out, key, current(item, value))
      elseif item.kind == 'string' and type(value) == 'string' then
        node.set(out, key, node.string(value))
      else
        node.set(out, key, node.from(value))
      end
    end
    local added = node.from(values)
    if added.kind == 'map' then
      for _, key in ipairs(added.keys) do
        if not known[key] then node.set(out, key, added.items[key]) end
      end
    end
    return out
  end
  return node.yaml(current(tree, cfg))
end

-- cfg's value at a dotted key, a path that must be set and exist. A placeholder such as <PATH_TO_DATA> counts as not set.
function M.require_path(cfg, key)
  local value = cfg
  for _, part in ipairs(split_key(key)) do value = type(value) == 'table' and value[part] or nil end
  local item = trees[cfg] and find(trees[cfg], key)
  local where = item and item.where and (' in %s'):format(item.where) or ''
  if value == nil or value == '' or tostring(value):match('^<.*>$') then
    error(('%s is not set (%s%s): write %s=PATH'):format(key, tostring(value or 'null'), where, key), 0)
  end
  if not lfs.attributes(value) then error(('%s=%s: there is no such file or folder%s'):format(key, value,
    where ~= '' and (' (set%s)'):format(where) or ''), 0) end
  return value
end

return M
