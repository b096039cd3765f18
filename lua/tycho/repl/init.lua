-- The prompt: reads, evaluates, prints, and lives on after errors and Ctrl-C. On a pipe or a dumb terminal it reads plain lines.
local ffi = require 'ffi'
local complete = require 'tycho.repl.complete'
local edit = require 'tycho.repl.edit'
local evaluate = require 'tycho.repl.evaluate'
local printer = require 'tycho.repl.print'
pcall(ffi.cdef, 'int isatty(int fd);')

local HISTORY_LIMIT = 1000

local function history_path()
  local home = os.getenv('HOME')
  return home and home .. '/.tycho_history'
end

-- A missing or damaged history is an empty one.
local function load_history()
  local history, path = {}, history_path()
  local file = path and io.open(path, 'r')
  if file then
    for line in file:lines() do history[#history + 1] = line end
    file:close()
  end
  return { unpack(history, math.max(1, #history - HISTORY_LIMIT + 1)) }
end
local function remember(history, line)
  if line:match('^%s*$') or history[#history] == line then return end
  history[#history + 1] = line
  local path = history_path()
  local file = path and io.open(path, 'a')
  if file then
    file:write(line, '\n')
    file:close()
  end
end

local function plain_reader()
  return function() return io.read('*l') end
end
local function terminal_reader(environment)
  local history = load_history()
  return function(prompt)
    local line = edit.line(prompt, history, function(text) return complete.candidates(environment, text) end)
    if line then remember(history, line) end
    return line
  end
end

local function show(results)
  for i = 1, results.n do
    local ok, text = pcall(printer.value, results[i])
    print(ok and text or '<cannot be printed: ' .. tostring(text) .. '>')
  end
end

local function run(chunk, environment, hidden)
  local lib = require 'tycho.lib'
  lib.on_interrupt('raise')
  local ok, results, trace = evaluate.run(chunk, lib.interrupted)
  lib.on_interrupt(nil)
  if not ok then
    io.stdout:flush()
    io.stderr:write(#trace > 1 and table.concat(trace, '\n') or results, '\n')
    return false
  end
  if results.n > 0 then environment._ = results[1] end
  if not hidden then show(results) end
  return true
end

-- Returns the exit status: on a pipe, 1 when a line failed.
return function()
  local environment = evaluate.environment()
  local terminal = ffi.C.isatty(0) == 1 and ffi.C.isatty(1) == 1 and os.getenv('TERM') ~= 'dumb'
  local read = terminal and terminal_reader(environment) or plain_reader()
  if terminal then
    print(('Tycho %s, %s. Tensors count from 0. Ctrl-D ends.'):format(require('tycho').version, jit.version))
  end
  local text, status = nil, 0
  while true do
    local line = read(text and '>> ' or '> ')
    if line == nil then break end
    if line == false then
      text = nil
    elseif text or line:match('%S') then
      text = text and text .. '\n' .. line or line
      local source, hidden = text:gsub(';%s*$', '')
      local chunk, message = evaluate.compile(source, environment)
      if chunk then
        if not run(chunk, environment, hidden > 0) then status = 1 end
        text = nil
      elseif message ~= true then
        io.stderr:write(message, '\n')
        text, status = nil, 1
      end
    end
  end
  if text then
    io.stderr:write('the input ended inside a statement\n')
    status = 1
  end
  return terminal and 0 or status
end
