-- Commands of the prompt: ':name argument' runs commands/NAME.lua, a file that returns function(session, argument); its first comment line is its
-- help. Some have a short form: ?name, ??name, ?? words, !line.
local complete = require 'tycho.repl.complete'
local nearest = require 'tycho.nearest'

local M = {}

local folder = (package.loaded['tycho.root'] or require('tycho.lib').root) .. '/lua/tycho/repl/commands'

-- Names of all commands, sorted.
function M.names()
  local names = {}
  for file in require('lfs').dir(folder) do
    names[#names + 1] = file:match('^(%l+)%.lua$')
  end
  table.sort(names)
  return names
end

-- The first comment line of a command's file.
function M.summary(name)
  return io.lines(('%s/%s.lua'):format(folder, name))():match('^%-%-%s*(.*)$')
end

-- The name and the argument that a line means, or nil for Lua text.
function M.parse(text)
  local name, argument = text:match('^:%s*(%S*)%s*(.-)%s*$')
  if name then return name == '' and 'help' or name, argument end
  local words = text:match('^%?%?%s+(.-)%s*$')
  if words then return 'search', words end
  name = text:match('^%?%?(.-)%s*$')
  if name then return 'source', name end
  name = text:match('^%?%s*(.-)%s*$')
  if name then return 'help', name end
  local line = text:match('^!%s*(.-)%s*$')
  if line then return 'shell', line end
end

-- Runs a command; raises one sentence when there is none of this name, or what it raises.
function M.run(session, name, argument)
  if not name:match('^%l+$') or not package.searchpath('tycho.repl.commands.' .. name, package.path) then
    local near = nearest(name, M.names())
    error((":%s is no command; %s"):format(name, near and ("did you mean :%s?"):format(near) or ':help lists them'), 0)
  end
  return require('tycho.repl.commands.' .. name)(session, argument)
end

-- As complete.candidates, for a line that is a command.
function M.candidates(environment, text)
  local prefix = text:match('^:(%l*)$')
  if prefix then
    local words = {}
    for _, name in ipairs(M.names()) do
      if name:sub(1, #prefix) == prefix then words[#words + 1] = name end
    end
    return words, prefix
  end
  local name = text:match('^:(%l+)') or text:sub(1, 1)
  local argument = text:match('^:%l+%s+(.*)$') or text:match('^[?!]+%s*(.*)$') or ''
  if name == 'run' or name == 'save' or name == '!' then return complete.arguments(argument) end
  return complete.candidates(environment, argument)
end

return M
