-- lists the commands; ?name: what it means, from the comments in the sources
local commands = require 'tycho.repl.commands'
local help = require 'tycho.help'

local function list(session)
  local lines = { 'Expressions print, a ; at the end hides; _ is the last result, Out[n] that of line n. TAB completes, Ctrl-R searches.' }
  for _, name in ipairs(commands.names()) do lines[#lines + 1] = ('  :%-8s %s'):format(name, commands.summary(name)) end
  lines[#lines + 1] = 'Short forms: ?name is :help name, ??name :source name, ?? words :search words, !line :shell line.'
  session:print(table.concat(lines, '\n'))
end

return function(session, name)
  if name == '' then return list(session) end
  local entry, near = help.find(session.environment, name)
  if not entry then
    local value = help.value_of(session.environment, name)
    if value ~= nil and name:match('^[%a_][%w_.:]*$') then return session:show(value) end
    local advice = near and ('did you mean ?%s?'):format(near) or ('?? %s searches all comments'):format(name)
    error(("nothing is known about '%s'; %s"):format(name, advice), 0)
  end
  local lines = { entry.signature }
  for line in (entry.text .. '\n'):gmatch('([^\n]*)\n') do
    if line ~= '' then lines[#lines + 1] = '  ' .. line end
  end
  if entry.path then lines[#lines + 1] = ('  (%s%s)'):format(help.display(entry.path), entry.line and ':' .. entry.line or '') end
  session:print(table.concat(lines, '\n'))
end
