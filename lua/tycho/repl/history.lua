-- What was typed before, one file for each project: the nearest folder upwards with .git, or the working folder. An entry is a line of the file,
-- with \n for the line breaks in it. A history that cannot be read or written is an empty one.
local lfs = require 'lfs'
local files = require 'tycho.io.file'

local M = {}

local LIMIT = 2000

local function project()
  local folder = lfs.currentdir() or '/'
  local at = folder
  while at do
    if lfs.attributes((at == '/' and '' or at) .. '/.git') then return at end
    at = at ~= '/' and (at:match('^(.+)/[^/]*$') or '/') or nil
  end
  return folder
end

local function folder_of_histories()
  local state, home = os.getenv('XDG_STATE_HOME'), os.getenv('HOME')
  if state and state ~= '' then return state .. '/tycho/history' end
  return home and lfs.attributes(home, 'mode') == 'directory' and home .. '/.local/state/tycho/history'
end

-- The file of this project's history, or nil without a home.
function M.path()
  local folder = folder_of_histories()
  return folder and ('%s/%s'):format(folder, project():gsub('%%', '%%%%'):gsub('/', '%%'):sub(-200))
end

local escapes = { ['\n'] = '\\n', ['\\'] = '\\\\' }
local function encode(text) return (text:gsub('[\n\\]', escapes)) end
local function decode(line) return (line:gsub('\\(.)', { n = '\n', ['\\'] = '\\' })) end

-- List of entries, the oldest first. Lines that nobody typed, which a damaged file may hold, are left out.
function M.load()
  local entries, path = {}, M.path()
  local file = path and lfs.attributes(path, 'mode') == 'file' and io.open(path, 'rb')
  if file then
    for line in (file:read('*a') or ''):gmatch('[^\n]+') do
      if not line:find('[%z\1-\8\11-\31\127]') then entries[#entries + 1] = decode(line) end
    end
    file:close()
  end
  return { unpack(entries, math.max(1, #entries - LIMIT + 1)) }
end

-- Adds text to the list and to the file, unless it is blank or what was typed last.
function M.add(entries, text)
  if text:match('^%s*$') or entries[#entries] == text then return end
  entries[#entries + 1] = text
  local path = M.path()
  if not path then return end
  local file = io.open(path, 'ab')
  if not file then
    pcall(files.make_folders, path:match('^(.*)/'))
    file = io.open(path, 'ab')
  end
  if file then
    file:write(encode(text), '\n')
    file:close()
  end
end

return M
