-- The prompt: reads, evaluates, prints, and lives on after errors and Ctrl-C. On a pipe or a dumb terminal it reads plain lines.
local edit = require 'tycho.repl.edit'
local history = require 'tycho.repl.history'
local lib = require 'tycho.lib'
local storages = require 'tycho.storage'
local new_session = require 'tycho.repl.session'
local reload = require 'tycho.repl.reload'
local terminal = require 'tycho.repl.terminal'
local trace = require 'tycho.repl.trace'

local M = {}

-- The prompt of a session and that of further lines, equally wide.
local function prompts(session)
  local prompt = ('%d> '):format(session.count + 1)
  return prompt, ('.'):rep(#prompt - 1) .. ' '
end

-- Reads whole texts in the editor.
local function editor_reader(session)
  local entries, colors = history.load(), terminal.has_colors(1)
  return function()
    local prompt, continuation = prompts(session)
    local text = edit { prompt = prompt, continuation = continuation, history = entries, colors = colors, idle = session.idle,
      completions = function(before) return session:completions(before) end, hint = function(before) return session:hint(before) end,
      is_whole = function(whole) return session:is_whole(whole) end }
    if text then history.add(entries, text) end
    return text
  end
end

-- Reads lines until they are a whole text. shows: a person is there to see the prompt.
local function line_reader(session, shows)
  return function()
    local prompt, continuation = prompts(session)
    local text
    repeat
      if shows then
        io.write(text and continuation or prompt)
        io.flush()
      end
      local line = io.read('*l')
      if not line then return text end
      text = text and text .. '\n' .. line or line
    until session:is_whole(text)
    return text
  end
end

-- Reads and runs until the input ends or a command says that it is enough. Returns whether all went well.
function M.run(session)
  local is_interactive = terminal.is_interactive()
  local mode = is_interactive and lib.on_interrupt('raise') -- Ctrl-C between two lines ends nothing
  local read = is_interactive and editor_reader(session) or line_reader(session, terminal.has_person())
  local all_well = true
  while not session.is_over do
    local text = read()
    if text == nil then break end
    if session.before then session.before() end
    if text and not session:run(text) then all_well = false end
  end
  if is_interactive then lib.on_interrupt(mode or nil) end
  return all_well
end

-- A function that prints what a session says: results to stdout, messages to stderr.
function M.writer()
  local colors = terminal.has_colors(2)
  return function(text, status)
    if status ~= 'error' then
      io.write(text)
      return
    end
    io.stdout:flush()
    io.stderr:write(terminal.paint('error', (text:gsub('\n$', '')), colors), '\n')
  end
end

-- A session on this terminal or pipe. frames: of the program that it is in the middle of [opt].
function M.session(frames)
  reload.begin()
  storages.find_site = lib.caller
  return new_session { frames = frames, write = M.writer() }
end

-- ./tycho without arguments. Returns the exit status: on a pipe, 1 when something failed.
return setmetatable(M, { __call = function()
  if terminal.is_interactive() then
    print(('Tycho %s, %s. :help lists the commands, Ctrl-D ends.'):format(require('tycho').version, jit.version))
  end
  local session = M.session()
  session.frames = trace.last -- of a script that failed before (-i)
  local all_well = M.run(session)
  return (terminal.is_interactive() or all_well) and 0 or 1
end })
