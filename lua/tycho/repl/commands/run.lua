-- runs a script with arguments in this session: :run FILE.lua key=value ...
local lfs = require 'lfs'

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

return function(session, argument)
  local words = split(argument)
  local path = table.remove(words, 1)
  if not path then error(':run needs a script, as in :run experiments/main.lua epochs=2', 0) end
  if lfs.attributes(path, 'mode') ~= 'file' then error(('there is no script %s'):format(path), 0) end
  local chunk, message = loadfile(path)
  if not chunk then error(message, 0) end
  local arg_before, exit = rawget(_G, 'arg'), os.exit
  local list = { [0] = path, [-1] = 'tycho' }
  for i, word in ipairs(words) do list[i] = word end
  rawset(_G, 'arg', list)
  -- A script that ends the process ends here.
  rawset(os, 'exit', function(status) error({ EXIT, status }, 0) end)
  local trace
  local ok, result = xpcall(setfenv(chunk, session.environment), function(raised)
    if type(raised) ~= 'table' then trace = require('tycho.lib').remember(raised) end
    return raised
  end, unpack(words))
  rawset(_G, 'arg', arg_before)
  rawset(os, 'exit', exit)
  if ok then return true end
  if type(result) ~= 'table' or result[1] ~= EXIT then error(trace or result, 0) end
  local status = result[2]
  if status and status ~= 0 and status ~= true then error(('%s ended with status %s'):format(path, tostring(status)), 0) end
end
