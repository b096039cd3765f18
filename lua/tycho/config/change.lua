-- Changes of a tree of settings: what may take the place of what, and what a change costs when it is wrong.
local keys = require 'tycho.config.keys'
local nearest = require 'tycho.nearest'
local node = require 'tycho.config.node'
local override = require 'tycho.config.override'

local M = {}

local at = keys.at

-- ---- kinds ----

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

-- value as it is to be stored in place of default; an error where the kinds differ. A text with ${...} is looked at when that is filled in. auto
-- stands for text or for true or false.
function M.convert(key, value, default)
  if value.kind == 'null' or default.kind == 'null' or value.kind == default.kind and value.kind ~= 'list' then return value end
  local numeric = { integer = true, number = true }
  if numeric[value.kind] and numeric[default.kind] then return value end
  if value.kind == 'string' and value.value:find('${', 1, true) then return value end
  if value.kind == 'boolean' and default.value == 'auto' then return value end
  if default.kind == 'string' and value.raw then return node.string(value.raw) end
  if value.kind == 'list' and default.kind == 'list' then
    local kind = element_kind(default)
    if kind == nil or #value.items == 0 or element_kind(value) == kind then return value end
  end
  error(('%s must be %s, got %s%s; its default is %s%s'):format(key, describe(default), node.inline(value), at(value),
    node.inline(default), at(default)), 0)
end

-- ---- one key ----

-- Keys that steer Hydra, which is not here; the reference's files and command lines may hold them.
local function is_foreign(key) return key == 'hydra' or key:match('^hydra%.') ~= nil end

-- The reference's name for one of ours.
local aliases = { ['hydra.run.dir'] = 'run_dir' }

-- A key whose meaning begins with these words is accepted because the reference has it; who sets it should know.
function M.is_without_effect(n) return n.meaning ~= nil and n.meaning:match('^no effect') ~= nil end

-- Puts value at key. mode: '' changes a key, '+' makes one, '++' does either without looking at kinds. said: list that keys without effect are added
-- to; nil where a file of ours changes keys of another one: then its comments replace the older meanings.
function M.assign(tree, key, value, mode, said)
  local old = keys.find(tree, key)
  if mode == '+' and old then
    error(("+%s: the key exists already%s; write %s=%s"):format(key, at(old), key, node.inline(value)), 0)
  end
  if mode == '' and not old then keys.fail_unknown(tree, key, value.where, ('to add a key write +%s=%s'):format(key, node.inline(value))) end
  if value.kind == 'map' and old and old.kind == 'map' then
    for _, name in ipairs(value.keys) do M.assign(tree, key .. '.' .. name, value.items[name], mode, said) end
    return
  end
  local default = old and (old.default or old)
  local where, meaning = value.where or 'the command line', value.meaning
  if default and mode ~= '++' then value = M.convert(key, value, default) end
  value.where, value.default = where, default
  value.meaning = said and old and old.meaning or meaning or old and old.meaning
  keys.set(tree, key, value)
  if said and old and M.is_without_effect(old) and (where == 'the command line' or node.inline(value) ~= node.inline(old)) then
    table.insert(said, key)
  end
end

local function remove(tree, key, value)
  local old = keys.find(tree, key)
  if not old then keys.fail_unknown(tree, key, nil, '--help lists the keys') end
  if value and node.inline(value) ~= node.inline(old) then
    error(('~%s=%s: the value is %s'):format(key, node.inline(value), node.inline(old)), 0)
  end
  keys.set(tree, key, nil)
end

-- ---- sources of changes ----

-- One argument of the command line, in override's grammar.
function M.apply(tree, argument, said)
  local change = override.parse(argument)
  if not change then
    local key, value = argument:match('^%-%-?([%w_.]+)=?(.*)$')
    if key and keys.find(tree, key) then
      error(("'%s' is not key=value; write %s=%s"):format(argument, key, value ~= '' and value or 'VALUE'), 0)
    end
    local hint = keys.find(tree, argument) and ('; write %s=VALUE'):format(argument) or '; --help lists the keys'
    error(("'%s' is not key=value%s"):format(argument, hint), 0)
  end
  local key = change.key
  if aliases[key] and not keys.find(tree, key) and keys.find(tree, aliases[key]) then key = aliases[key] end
  if change.mode == '~' then
    remove(tree, key, change.value)
  elseif is_foreign(key) and not keys.find(tree, key) then
    table.insert(said, key)
  else
    M.assign(tree, key, change.value, change.mode, said)
  end
end

-- All keys of another tree, laid over tree. unknown: what becomes of keys that tree has not: 'added'; 'added unless close' to one that it has,
-- which a slip explains; or 'refused'.
function M.merge(tree, other, unknown, said)
  local known = keys.all(tree)
  local function walk(map, prefix)
    for _, name in ipairs(map.keys) do
      local key, item = prefix .. name, map.items[name]
      local old = keys.find(tree, key)
      local near, is_slip = nil, nil
      if not old and unknown == 'added unless close' then near, is_slip = nearest(key, known) end
      if is_foreign(key) then
        if said then table.insert(said, key) end
      elseif is_slip then
        error(("unknown key '%s' (%s); did you mean '%s'?"):format(key, item.where, near), 0)
      elseif item.kind == 'map' and old and old.kind == 'map' then
        walk(item, key .. '.')
      else
        M.assign(tree, key, item, (old or unknown == 'refused') and '' or '+', said)
      end
    end
  end
  walk(other, '')
end

return M
