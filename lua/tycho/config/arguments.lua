-- The arguments of a script, parted into options and changes of settings. Knows nothing of which keys exist.
local M = {}

local function count(text, character) return select(2, text:gsub('%' .. character, '')) end

-- A list or map whose blanks the shell took for separators is open until its brackets are closed.
local function is_open(argument)
  return argument:match('=%s*[%[{]') and (count(argument, '[') > count(argument, ']') or count(argument, '{') > count(argument, '}'))
end

local options = {
  ['--config-name'] = 'config_name', ['-cn'] = 'config_name', ['--config-path'] = 'config_path', ['-cp'] = 'config_path',
  ['--cfg'] = 'show', ['-c'] = 'show',
}
-- --resolve is Hydra's, beside --cfg; here ${...} is always filled in.
local flags = { ['--help'] = 'help', ['-h'] = 'help', ['--resolve'] = 'resolve' }
local known = 'options are --config-name NAME, --config-path FOLDER, --cfg job, --help'

-- Returns { changes = list of key=value texts, config_name, config_path, show, help, notes = list of sentences }.
function M.read(args)
  local request = { changes = {}, notes = {} }
  local i = 1
  while args[i] do
    local argument = args[i]
    local option, value = argument:match('^(%-%-[%w-]+)=(.*)$')
    option = option or argument
    if argument:match('^%s*$') then
      table.insert(request.notes, 'ignored a blank argument: where a blank follows the backslash at the end of a line, the shell ends the command, '
        .. 'and the lines below it do not arrive here')
    elseif options[option] then
      if not value then
        i = i + 1
        value = args[i]
      end
      if not value then error(('%s needs a value'):format(option), 0) end
      request[options[option]] = value
    elseif flags[option] then
      request[flags[option]] = true
    elseif option == '--multirun' or option == '-m' then
      error(('%s: this script cannot be swept; tycho.sweep.take(arg) in its first lines lets it, tycho.sweep.run from Lua'):format(option), 0)
    elseif argument:match('^%-') and not argument:find('=', 1, true) then
      error(("unknown option '%s'; %s"):format(argument, known), 0)
    else
      while is_open(argument) and args[i + 1] and not args[i + 1]:find('=', 1, true) do
        i = i + 1
        argument = argument .. ' ' .. args[i]
      end
      table.insert(request.changes, argument)
    end
    i = i + 1
  end
  if request.show and request.show ~= 'job' and request.show ~= 'all' then
    error(("--cfg prints the settings with 'job' or 'all', got '%s'"):format(request.show), 0)
  end
  return request
end

return M
