-- Files of settings: where they are looked for, and the files that they are based on.
local lfs = require 'lfs'
local change = require 'tycho.config.change'
local keys = require 'tycho.config.keys'
local nearest = require 'tycho.nearest'
local node = require 'tycho.config.node'
local yaml = require 'tycho.config.yaml'

local M = {}

-- path relative to the working folder where it lies below it, as a reader of a message would type it.
function M.display(path)
  local here = (lfs.currentdir() or '') .. '/' -- nil in a folder that was removed
  if #here > 1 and path:sub(1, #here) == here then return path:sub(#here + 1) end
  return (path:gsub('^%./', ''))
end

local function folder_of(path) return path:match('^(.*/)[^/]*$') or '' end

-- The tree of a YAML file alone, and the path of the file that its key 'base' names, from the file's folder on, or nil.
function M.read_alone(path)
  local tree = yaml.read(path, M.display(path))
  local base = tree.items.base
  if not base then return tree end
  if base.kind ~= 'string' then error(('base must name a YAML file%s'):format(keys.at(base)), 0) end
  node.set(tree, 'base', nil)
  return tree, base.value:sub(1, 1) == '/' and base.value or folder_of(path) .. base.value
end

-- The tree of a YAML file over those that it is based on; seen guards against circles. A file may add keys to its base; only one that looks like
-- a slip of a base's key is refused.
function M.read(path, seen)
  seen = seen or {}
  if seen[path] then error(("%s: 'base' leads back to itself"):format(M.display(path)), 0) end
  seen[path] = true
  local tree, base = M.read_alone(path)
  if not base then return tree end
  local whole = M.read(base, seen)
  change.merge(whole, tree, 'added unless close')
  return whole
end

-- The path of the file that --config-name and --config-path mean; beside: the script's own file. A name with a slash is a path.
function M.named(name, folder, beside)
  if folder and lfs.attributes(folder, 'mode') ~= 'directory' then error(('--config-path %s: there is no such folder'):format(folder), 0) end
  folder = folder and folder:gsub('/*$', '/') or folder_of(beside)
  name = name or beside:match('[^/]*$')
  local path = name:find('/', 1, true) and name or folder .. name
  if not path:match('%.ya?ml$') then path = path .. (lfs.attributes(path .. '.yaml') and '.yaml' or '.yml') end
  if lfs.attributes(path) then return path end
  local names = {}
  folder = folder_of(path) == '' and '.' or folder_of(path)
  if lfs.attributes(folder, 'mode') == 'directory' then
    for entry in lfs.dir(folder) do
      if entry:match('%.ya?ml$') then names[#names + 1] = entry end
    end
  end
  table.sort(names)
  local near = nearest(path:match('[^/]*$'), names)
  error(('no configuration file %s; %s'):format(M.display(path), near and ("did you mean '%s'?"):format(near)
    or #names > 0 and 'there are ' .. table.concat(names, ', ') or 'there are none in that folder'), 0)
end

return M
