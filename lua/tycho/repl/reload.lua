-- Edited sources in a living process. A module is read and run anew beside the old one; then the old functions are replaced by the new ones of the
-- same place wherever they are held: in tables, classes, upvalues and the locals of running functions. Tables keep their identity and take the
-- new entries; numbers and texts take the file's values; functions that somebody put in the place of the module's own stay. Nothing changes when
-- the file does not compile or raises.
local ffi = require 'ffi'
local file = require 'tycho.io.file'

local M = {}

local texts = {} -- path -> the text that was loaded
local refused = { ['tycho.lib'] = true, ['tycho.luajit'] = true } -- what they hold would be lost

local read = file.read

local function path_of(name) return package.searchpath(name, package.path) end

local function note(name)
  local path = path_of(name)
  if path then texts[path] = read(path) end
end

-- Remembers the sources of all modules, those that will be loaded too.
function M.begin()
  if M.has_begun then return end
  M.has_begun = true
  for name in pairs(package.loaded) do note(name) end
  table.insert(package.loaders, 2, note) -- a loader that finds nothing, asked before the one that reads files
end

-- Names of loaded modules whose file has another text than when it was loaded, sorted.
function M.changed()
  local names = {}
  for name in pairs(package.loaded) do
    local path = path_of(name)
    if path and texts[path] and not refused[name] and read(path) ~= texts[path] then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

-- ---- pairing old and new ----

local function source_of(fn) return debug.getinfo(fn, 'S').source end

local function upvalues(fn)
  local out = {}
  for i = 1, 60 do
    local name, value = debug.getupvalue(fn, i)
    if not name then break end
    out[name] = value
  end
  return out
end

-- Collects in plan.map what stands for what: the old function -> the new one, the new table -> the old one; and tables to merge.
local function pair(old, new, plan)
  if old == nil or old == new or type(old) ~= type(new) or plan.seen[new] then return end
  if type(new) == 'function' then
    if source_of(new) == '=[C]' or source_of(old) ~= source_of(new) then return end
    plan.seen[new] = true
    plan.map[old] = new
    plan.functions = plan.functions + 1
    local before = upvalues(old)
    for name, value in pairs(upvalues(new)) do pair(before[name], value, plan) end
  elseif type(new) == 'table' then
    plan.seen[new] = true
    plan.map[new] = old
    table.insert(plan.tables, { old, new })
    for key, value in pairs(new) do pair(rawget(old, key), value, plan) end
    pair(debug.getmetatable(old), debug.getmetatable(new), plan)
  end
end

local function merge(old, new)
  for key, value in pairs(new) do
    local before = rawget(old, key)
    local is_foreign = type(before) == 'function' and type(value) == 'function' and source_of(before) ~= source_of(value)
    if type(value) ~= 'table' or type(before) ~= 'table' then
      if not is_foreign then rawset(old, key, value) end
    end
  end
end

-- Puts map[value] in the place of every value that can be reached.
local function replace_everywhere(map, plan)
  local seen, waiting = { [map] = true, [plan] = true, [plan.tables] = true, [plan.seen] = true }, {}
  local function visit(value)
    local kind = type(value)
    if (kind == 'table' or kind == 'function') and not seen[value] then
      seen[value] = true
      waiting[#waiting + 1] = value
    end
  end
  local function translate(value, set)
    local other = value ~= nil and map[value]
    if other then
      set(other)
      visit(other)
    else
      visit(value)
    end
  end
  visit(_G)
  visit(debug.getregistry())
  for level = 3, 200 do -- the functions that are running, but for those of this file
    local info = debug.getinfo(level, 'f')
    if not info then break end
    visit(info.func)
    for i = 1, 250 do
      local name, value = debug.getlocal(level, i)
      if not name then break end
      if seen[value] == nil then translate(value, function(other) debug.setlocal(level + 2, i, other) end) end
    end
  end
  while waiting[1] do
    local value = table.remove(waiting)
    if type(value) == 'table' then
      for key, entry in pairs(value) do
        visit(key)
        translate(entry, function(other) rawset(value, key, other) end)
      end
      translate(debug.getmetatable(value), function(other) debug.setmetatable(value, other) end)
    else
      for i = 1, 60 do
        local name, entry = debug.getupvalue(value, i)
        if not name then break end
        translate(entry, function(other) debug.setupvalue(value, i, other) end)
      end
      visit(debug.getfenv(value))
    end
  end
end

-- ---- reloading ----

-- Runs a module's chunk; declarations for the FFI that were made before may be made again.
local function run_chunk(chunk, name)
  local cdef = ffi.cdef
  ffi.cdef = function(...)
    local ok, message = pcall(cdef, ...)
    if not ok and not message:match('redefine') then error(message, 0) end
  end
  local ok, value = pcall(chunk, name)
  ffi.cdef = cdef
  if not ok then error(('%s was not reloaded, it raised: %s'):format(name, tostring(value)), 0) end
  return value
end

-- Reloads a loaded module; returns how many functions took another's place. Raises one sentence, and changes nothing, when it cannot.
function M.reload(name)
  if refused[name] then error(('%s holds what is alive and cannot be reloaded; start again for it'):format(name), 0) end
  local old, path = package.loaded[name], path_of(name)
  if old == nil or not path then error(('%s is no loaded module'):format(name), 0) end
  local text = read(path)
  local chunk, message = loadstring(text, '@' .. path)
  if not chunk then error(('%s was not reloaded: %s'):format(name, message), 0) end
  local new = run_chunk(chunk, name)
  local plan = { map = {}, tables = {}, seen = {}, functions = 0 }
  pair(old, new, plan)
  if type(old) ~= type(new) or plan.map[old] == nil and plan.map[new] == nil and old ~= new then
    error(('%s was not reloaded: it was a %s and is a %s now'):format(name, type(old), type(new)), 0)
  end
  for _, both in ipairs(plan.tables) do merge(both[1], both[2]) end
  replace_everywhere(plan.map, plan)
  jit.flush() -- compiled code holds the old functions
  texts[path] = text
  return plan.functions
end

-- The module that a name or a path of a file means.
function M.module(text)
  if package.loaded[text] then return text end
  for name in pairs(package.loaded) do
    local path = path_of(name)
    if path and (path == text or path:sub(-#text - 1) == '/' .. text or path:gsub('^%./', '') == text) then return name end
  end
  error(("'%s' is no loaded module; :reload without a name takes all that were edited"):format(text), 0)
end

-- Reloads all that were edited. Returns a list of sentences, and false when one of them could not be.
function M.reload_changed()
  local said, all_well = {}, true
  for _, name in ipairs(M.changed()) do
    local ok, result = pcall(M.reload, name)
    if ok then
      said[#said + 1] = ('reloaded %s: %d functions'):format(name, result)
    else
      said[#said + 1], all_well = result, false
    end
  end
  return said, all_well
end

return M
