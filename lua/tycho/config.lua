-- Settings of a script: defaults from a YAML file or a Lua table, changed by key=value arguments in Hydra's manner.
-- Never changes the working folder, writes no file, and starts no sweep.
--
--   local cfg = config.load(root .. '/experiments/config.yml', arg)   -- cfg.epochs, cfg.wandb.project
--   local cfg = config.parse({ epochs = 10 }, arg)                    -- a comment behind each default is its help text
--
-- Arguments: key=value, a.b=value, +key=value (new key), ++key=value (new or not), ~key (remove), the last of equals wins;
-- --config-name NAME, --config-path FOLDER (another file over the defaults), --cfg job (print the settings and exit), --help (explain them and
-- exit). A YAML file may begin with 'base: other.yml': then it changes keys of that file. null is nil. A key whose comment begins with 'no effect'
-- is accepted; setting it is said once. The parts: config/ yaml, override and arguments read, change and interpolate change, check and help.
local lfs = require 'lfs'
local arguments = require 'tycho.config.arguments'
local change = require 'tycho.config.change'
local files = require 'tycho.config.file'
local help = require 'tycho.config.help'
local interpolate = require 'tycho.config.interpolate'
local keys = require 'tycho.config.keys'
local node = require 'tycho.config.node'

local M = {}

local trees = setmetatable({}, { __mode = 'k' }) -- settings table -> its tree
local notes = setmetatable({}, { __mode = 'k' }) -- settings table -> list of sentences
local known = setmetatable({}, { __mode = 'k' }) -- settings table -> the keys of its defaults, in order
local printed = {} -- a note is printed once, however often settings are made

-- ---- making settings ----

-- Tells the person at the keyboard, and remembers it for the log of a run.
function M.note(cfg, text)
  notes[cfg] = notes[cfg] or {}
  table.insert(notes[cfg], text)
  if not printed[text] then io.stderr:write('tycho: ', text, '\n') end
  printed[text] = true
end

local function note_without_effect(cfg, said)
  local unique, seen = {}, {}
  for _, key in ipairs(said) do
    if not seen[key] then unique[#unique + 1] = key end
    seen[key] = true
  end
  if #unique > 0 then M.note(cfg, ('no effect: %s (--help says why)'):format(table.concat(unique, ', '))) end
end

local function finish(tree, request, source, said)
  local names = keys.all(tree)
  for _, text in ipairs(request.changes) do change.apply(tree, text, said) end
  interpolate.fill(tree)
  if request.help or request.show then
    if request.help then help(tree, source) else io.write(node.yaml(tree)) end
    io.stdout:flush()
    os.exit(0)
  end
  local cfg = node.plain(tree)
  trees[cfg], known[cfg] = tree, names
  for _, text in ipairs(request.notes) do M.note(cfg, text) end
  note_without_effect(cfg, said)
  return cfg
end

-- Settings from the YAML file at path, changed by args (list of strings, e.g. arg). over [opt]: a file of saved settings between the two, which may
-- hold further keys.
function M.load(path, args, over)
  local request, said = arguments.read(args or {}), {}
  local named = (request.config_name or request.config_path) and files.named(request.config_name, request.config_path, path)
  local own, base
  if named then own, base = files.read_alone(named) end
  local source = base and not over and named or path
  local tree, added = files.read(source), {}
  for i, text in ipairs(over and request.changes or {}) do
    local key = text:match '^%+([%w_.]+)='
    added[i] = key and not keys.find(tree, key) and key
  end
  if over then change.merge(tree, files.read(over), 'added') end
  for i, key in pairs(added) do -- what made the key in the saved settings is said again
    if key and keys.find(tree, key) then request.changes[i] = '+' .. request.changes[i] end
  end
  if named and source ~= named then change.merge(tree, own, base and 'added unless close' or 'refused', said) end
  return finish(tree, request, files.display(named or over or path), said)
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
      item.where = ('%s:%d'):format(files.display(info.source:sub(2)), number)
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
  local request = arguments.read(args or {})
  if request.config_name or request.config_path then error('--config-name: this script has no configuration files', 0) end
  local tree = node.from(defaults)
  if tree.kind ~= 'map' then tree = node.map() end
  annotate(tree, 2)
  return finish(tree, request, arg and arg[0] or 'the script', {})
end

-- ---- asking about them ----

-- What was said about cfg so far: list of sentences.
function M.notes(cfg) return notes[cfg] or {} end

-- Where the value at a dotted key was set: 'file:line' or 'the command line'; nil when nobody knows.
function M.where(cfg, key)
  local item = trees[cfg] and keys.find(trees[cfg], key)
  return item and item.where
end

local function value_of(cfg, key)
  local value = cfg
  for _, part in ipairs(keys.split(key)) do
    if type(value) ~= 'table' then return nil end
    value = value[part]
  end
  return value
end

-- Raises the sentence about the first value, in the order of the defaults, that breaks its rule. rules: key -> rule (tycho.config.check). Of a
-- plain table the keys that it has are checked.
function M.check(cfg, rules)
  for _, key in ipairs(known[cfg] or keys.all(node.from(cfg))) do
    local rule, value = rules[key], value_of(cfg, key)
    if rule and not rule.accepts(value) then
      local where = M.where(cfg, key)
      error(('%s must be %s, got %s%s%s'):format(key, rule.expected, node.inline(node.from(value)), where and (' (%s)'):format(where) or '',
        rule.advice and rule.advice(value) or ''), 0)
    end
  end
end

-- Where two settings differ: list of {key =, before =, after =, no_effect =}, values as texts, in order; groups as their entries.
function M.differences(before, after)
  local list, seen = {}, {}
  for _, cfg in ipairs { before, after } do
    for _, key in ipairs(keys.all(trees[cfg])) do
      local a, b = keys.find(trees[before], key), keys.find(trees[after], key)
      local x, y = a and node.inline(a) or 'null', b and node.inline(b) or 'null'
      if not seen[key] and x ~= y and not (a and a.kind == 'map') and not (b and b.kind == 'map') then
        list[#list + 1] = { key = key, before = x, after = y, no_effect = b ~= nil and change.is_without_effect(b) }
      end
      seen[key] = true
    end
  end
  return list
end

-- value with all ${ in its texts as what they are, not what stands for another value.
local function escaped(value)
  if type(value) == 'string' then return (value:gsub('%${', '\\${')) end
  if type(value) ~= 'table' then return value end
  local out = {}
  for key, item in pairs(value) do out[key] = escaped(item) end
  return out
end

-- YAML text of settings made here, in the order of the defaults' file, with the values that cfg has now. A plain table is sorted.
function M.dump(cfg)
  local tree = trees[cfg]
  if not tree then return node.yaml(node.from(cfg)) end
  local function current(map, values)
    local out, seen = node.map(), {}
    for _, key in ipairs(map.keys) do
      local item, value = map.items[key], values[key]
      seen[key] = true
      if item.kind == 'map' and type(value) == 'table' then
        node.set(out, key, current(item, value))
      else
        node.set(out, key, node.from(escaped(value)))
      end
    end
    local added = node.from(escaped(values))
    if added.kind == 'map' then
      for _, key in ipairs(added.keys) do
        if not seen[key] then node.set(out, key, added.items[key]) end
      end
    end
    return out
  end
  return node.yaml(current(tree, cfg))
end

-- cfg's value at a dotted key, a path that must be set and exist. A placeholder such as <PATH_TO_DATA> counts as not set. advice [opt]: what else to
-- say to someone who has none.
function M.require_path(cfg, key, advice)
  local value, where = value_of(cfg, key), M.where(cfg, key)
  if value == nil or value == '' or tostring(value):match('^<.*>$') then
    local shown = value == '' and '""' or tostring(value or 'null')
    error(('%s is not set (%s%s): write %s=PATH%s'):format(key, shown, where and ' from ' .. where or '', key, advice or ''), 0)
  end
  if not lfs.attributes(value) then
    error(('%s=%s: there is no such file or folder%s'):format(key, value, where and (' (from %s)'):format(where) or ''), 0)
  end
  return value
end

return M
