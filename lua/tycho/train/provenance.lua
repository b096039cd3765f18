-- What made a run: arguments, versions and the texts of the scripts, as files of its directory; and what of it is different now. made_with, here:
-- name -> text, what else the run's numbers come from, such as its device.
local ffi = require 'ffi'
local lfs = require 'lfs'
local file = require 'tycho.io.file'
local image = require 'tycho.io.image'
local json = require 'tycho.io.json'
local lib = require 'tycho.lib'

local M = {}

function M.versions(made_with)
  local versions = { tycho = require('tycho').version, luajit = jit.version, blas = ffi.string(lib.cpu.ty_blas()), jpeg = image.decoder(),
    threads = lib.cpu.ty_threads(), cpu = ffi.string(lib.cpu.ty_level()) }
  for name, text in pairs(made_with or {}) do versions[name] = text end
  return versions
end

local function absolute(path)
  return path:sub(1, 1) == '/' and path or lfs.currentdir() .. '/' .. path:gsub('^%./', '')
end

-- The scripts that take part, as name -> text: the one that was started, those on the way to this call, and the modules that they loaded, all but
-- the framework's own. Names are paths below the project, or file names.
function M.scripts()
  local root = absolute(lib.root):gsub('/%.?$', '') .. '/'
  local scripts = {}
  local function below(folder, path) return path:sub(1, #folder) == folder end
  local function add(path)
    local text = path:match('%.lua$') and not below(root .. 'lua/tycho/', path) and file.read(path)
    if text then scripts[below(root, path) and path:sub(#root + 1) or path:match('[^/]*$')] = text end
  end
  local started = absolute(arg and arg[0] or '')
  add(started)
  for level = 1, math.huge do
    local info = debug.getinfo(level, 'S')
    if not info then break end
    if info.source:sub(1, 1) == '@' then add(absolute(info.source:sub(2))) end
  end
  local folder = started:match('^(.*/)[^/]*$')
  for name in pairs(package.loaded) do
    local found = package.searchpath(name, package.path)
    local path = found and absolute(found)
    if path and (below(root, path) or below(folder, path)) then add(path) end
  end
  return scripts
end

-- Writes arguments.txt, scripts/ and versions.json by write(name, text), name being a path below the run's directory.
function M.save(write, made_with)
  local arguments = {}
  for i, argument in ipairs(arg or {}) do arguments[i] = argument .. '\n' end
  write('arguments.txt', table.concat(arguments))
  for name, text in pairs(M.scripts()) do write('scripts/' .. name, text) end
  write('versions.json', json.encode(M.versions(made_with), { indent = true }) .. '\n')
end

-- Whether M.save came to its end for the run at path.
function M.is_complete(path) return json.read(path .. '/versions.json') ~= nil end

-- Sentences: which versions and scripts are not those that path's run began with.
function M.changes(path, made_with)
  local out, before = {}, json.read(path .. '/versions.json') or {}
  for name, value in pairs(M.versions(made_with)) do
    local was = before[name]
    if was ~= nil and was ~= value then out[#out + 1] = ('%s was %s and is %s now'):format(name, tostring(was), tostring(value)) end
  end
  for name, text in pairs(M.scripts()) do
    local saved = ('%s/scripts/%s'):format(path, name)
    if lfs.attributes(saved) and file.read(saved) ~= text then out[#out + 1] = ('%s has another text now'):format(name) end
  end
  table.sort(out)
  return out
end

return M
