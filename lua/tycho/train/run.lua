-- A run's directory: everything that says what was run and what came of it, as plain files. Never shared, never overwritten.
local lfs = require 'lfs'
local json = require 'dkjson'
local file = require 'tycho.io.file'
local generator = require 'tycho.generator'

local Run = {}
Run.__index = Run
local M = {}

local function make_directories(path)
  local partial = path:sub(1, 1) == '/' and '/' or ''
  for part in path:gmatch('[^/]+') do
    partial = partial .. part
    if not lfs.attributes(partial) then
      local ok, why = lfs.mkdir(partial)
      if not ok and not lfs.attributes(partial) then error(('cannot make the folder %s: %s'):format(partial, why), 0) end
    end
    partial = partial .. '/'
  end
end
M.make_directories = make_directories

-- NaN and infinities have no JSON numbers; they are written as strings.
local function encodable(value)
  if type(value) == 'number' and (value ~= value or value == math.huge or value == -math.huge) then return tostring(value) end
  if type(value) ~= 'table' then return value end
  local out = {}
  for k, v in pairs(value) do out[k] = encodable(v) end
  return setmetatable(out, getmetatable(value))
end
function M.encode(value, indent) return json.encode(encodable(value), { indent = indent }) end

local function write_text(path, text)
  file.write(path, function(out) out:write(text) end)
end

-- A new directory OUT/<date>_<time>_<name>_<4 hex digits>, with the resolved configuration, the command line, the script's text and versions.
-- info: {config = text, arguments = list, script = path or nil, versions = table}.
function M.create(out, name, info)
  make_directories(out)
  local draws = generator(os.time() % 2^31, math.floor(os.clock() * 1e6) % 2^31)
  for _ = 1, 100 do
    local path = ('%s/%s_%s_%04x'):format(out, os.date('%Y%m%d_%H%M%S'), name, draws:integer(65536))
    if lfs.mkdir(path) then
      local self = setmetatable({ path = path }, Run)
      write_text(path .. '/config.yml', info.config)
      write_text(path .. '/arguments.txt', table.concat(info.arguments, '\n') .. '\n')
      write_text(path .. '/versions.json', M.encode(info.versions, true) .. '\n')
      local script = info.script and io.open(info.script, 'r')
      if script then
        write_text(path .. '/script.lua', script:read('*a'))
        script:close()
      end
      return self
    end
    if not lfs.attributes(path) then error(('cannot make the run directory %s: is %s writable?'):format(path, out), 0) end
  end
  error('cannot find a free run directory under ' .. out, 0)
end

-- The directory of an earlier run.
function M.open(path)
  if lfs.attributes(path .. '/config.yml', 'mode') ~= 'file' then
    error(('%s is not a run directory: expected config.yml in it'):format(path), 0)
  end
  return setmetatable({ path = path }, Run)
end

-- The newest run of this name under out that has the file, or nil.
function M.newest(out, name, having)
  local found
  if lfs.attributes(out, 'mode') ~= 'directory' then return nil end
  for entry in lfs.dir(out) do
    local path = out .. '/' .. entry
    if entry:match('^%d+_%d+_(.*)_%x+$') == name and lfs.attributes(path .. '/' .. having) and (not found or path > found) then found = path end
  end
  return found
end

-- Appends one object to metrics.jsonl.
function Run:log(values)
  local metrics, why = io.open(self.path .. '/metrics.jsonl', 'a')
  if not metrics then error('cannot write ' .. why, 0) end
  local ok, message = metrics:write(M.encode(values), '\n')
  metrics:close()
  if not ok then error(('cannot write %s/metrics.jsonl: %s'):format(self.path, message), 0) end
end

-- Keeps only the lines of metrics.jsonl for which keep(object) is true: what a resumed run will write again goes.
function Run:trim(keep)
  local metrics = io.open(self.path .. '/metrics.jsonl', 'r')
  if not metrics then return end
  local lines = {}
  for line in metrics:lines() do
    local object = json.decode(line)
    if object and keep(object) then lines[#lines + 1] = line .. '\n' end
  end
  metrics:close()
  write_text(self.path .. '/metrics.jsonl', table.concat(lines))
end

-- Writes NAME whole or not at all; returns its path.
function Run:write(name, text)
  write_text(self.path .. '/' .. name, text)
  return self.path .. '/' .. name
end

return M
