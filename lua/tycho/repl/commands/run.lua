-- runs a script with arguments in this session: :run FILE.lua key=value ...
local lfs = require 'lfs'
local lib = require 'tycho.lib'

local EXIT = {}

-- Words of a line; quotes keep blanks.
local function split(line)
  local words, word, quote = {}, nil, nil
  for c in line:gmatch '.' do
    if quote then
      if c == quote then quote = nil else word = word .. c end
    elseif c == '"' or c == "'" then
      quote, word = c, word or ''
    elseif c:match '%s' then
      words[#words + 1], word = word, nil
    else
      word = (word or '') .. c
    end
  end
  words[#words + 1] = word
  return words
end

local framework = lib.root .. '/lua/tycho/'

-- Forgets the modules that are not in the set before and not the framework's.
local function unload(before)
  for name in pairs(package.loaded) do
    local path = not before[name] and package.searchpath(name, package.path)
    if path and path:sub(1, #framework) ~= framework then package.loaded[name] = nil end
  end
end

return function(session, argument)
  local words = split(argument)
  local path = table.remove(words, 1)
  if not path then error(':run needs a script, as in :run experiments/main.lua epochs=2', 0) end
  if lfs.attributes(path, 'mode') ~= 'file' then error(('there is no script %s'):format(path), 0) end
  local chunk, message = loadfile(path)
  if not chunk then error(message, 0) end
  local arg_before, exit, loaded = rawget(_G, 'arg'), os.exit, {}
  for name in pairs(package.loaded) do loaded[name] = true end
  local list = { [0] = path, [-1] = 'tycho' }
  for i, word in ipairs(words) do list[i] = word end
  rawset(_G, 'arg', list)
  -- A script that ends the process ends here.
  rawset(os, 'exit', function(status) error({ EXIT, status }, 0) end)
  local trace
  local ok, result = xpcall(setfenv(chunk, session.environment), function(raised)
    if type(raised) ~= 'table' then trace = lib.remember(raised) end
    return raised
  end, unpack(words))
  rawset(_G, 'arg', arg_before)
  rawset(os, 'exit', exit)
  unload(loaded) -- what it changed in them, a policy for one, is not the next script's
  if ok then return true end
  if type(result) ~= 'table' or result[1] ~= EXIT then error(trace or result, 0) end
  local status = result[2]
  if status and status ~= 0 and status ~= true then error(('%s ended with status %s'):format(path, tostring(status)), 0) end
end
