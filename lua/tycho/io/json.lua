-- JSON files, over dkjson: errors name the file, writes are whole or not at all. null becomes json.null.
require 'tycho.luajit'
local file = require 'tycho.io.file'

-- A copy of dkjson that is never compiled: compiled, its loop over the keys of a list has been seen to end early and to lose the last element.
local function load_interpreted()
  local chunk = assert(loadfile(package.searchpath('dkjson', package.path)))
  jit.off(chunk, true)
  return chunk()
end
local dkjson = load_interpreted()

local M = { null = dkjson.null }

-- The value of a JSON text; where names it in errors.
function M.decode(text, where)
  local ok, value, stop, why = pcall(dkjson.decode, text, 1, dkjson.null)
  if not ok then file.fail(where or 'JSON', 'JSON nested too deeply') end
  if why then file.fail(where or 'JSON', 'not valid JSON: %s', why) end
  if text:find('%S', stop) then file.fail(where or 'JSON', 'not valid JSON: more text after the value, which ends at byte %d', stop - 1) end
  return value
end

-- options as dkjson's: indent = true, keyorder = { ... }. Keys are sorted otherwise, so that equal values give equal texts.
function M.encode(value, options)
  local state = {}
  for key, option in pairs(options or {}) do state[key] = option end
  if not state.keyorder then
    local names, seen = {}, {}
    local function collect(t)
      if type(t) ~= 'table' or seen[t] then return end
      seen[t] = true
      for key, child in pairs(t) do
        if type(key) == 'string' and not seen[key] then
          seen[key] = true
          names[#names + 1] = key
        end
        collect(child)
      end
    end
    collect(value)
    table.sort(names)
    state.keyorder = names
  end
  return dkjson.encode(value, state)
end

function M.load(path)
  local handle, why = io.open(path, 'rb')
  local text = handle and handle:read('*a')
  if handle then handle:close() end
  if not text then error('cannot read ' .. (why or path), 0) end
  return M.decode(text, path)
end

-- The object or list in the file at path, nil where there is none or the file is damaged.
function M.read(path)
  local ok, value = pcall(M.load, path)
  return ok and type(value) == 'table' and value ~= M.null and value or nil
end

function M.save(path, value, options)
  local text = M.encode(value, options or { indent = true })
  file.write(path, text .. '\n')
end

return M
