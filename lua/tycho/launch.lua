-- Reads the launcher's command line: a script, a subcommand, code, or the prompt. Returns the exit status.
-- Knows nothing of what scripts and subcommands do with their arguments.
require 'tycho.luajit'
local lfs = require 'lfs'
local nearest = require 'tycho.nearest'

local root = package.loaded['tycho.root']

local usage = [[
usage: ./tycho FILE.lua [key=value ...]   run a script
       ./tycho -m FILE.lua key=a,b ...    run it with every combination of the values: a sweep
       ./tycho NAME [argument ...]        run a subcommand
       ./tycho                            the prompt
options: -e CODE    run code
         -i         the prompt after a script or -e
         --help     this text; after a script or a subcommand, its own
         --version  the versions of Tycho and LuaJIT]]

-- The file that a message begins with, if any: seed=1:2: is none.
local function file_of(message) return type(message) == 'string' and message:match('^([^\n:=]+):%d+: ') end

-- Messages without a position are for the person at the keyboard; with one, they are faults of a program, and the way there helps: that within the
-- framework only to faults of the framework.
local function report(message)
  local path = file_of(message)
  if not path then
    io.stderr:write('tycho: ', tostring(message), '\n')
    return
  end
  local lib = package.loaded['tycho.lib']
  local trace = type(lib) == 'table' and lib.trace
  local text = trace and trace.message == message and trace.text or debug.traceback(message, 2)
  local lines, framework = {}, root .. '/lua/tycho/'
  local is_its_own = path:find(framework, 1, true)
  for line in text:gmatch('[^\n]+') do
    if line:find('tycho/launch.lua:', 1, true) then break end
    local is_inner = #lines > 1 and (line:find(framework, 1, true) or line:match '^%s*%[C%]: ')
    if is_its_own or not is_inner then lines[#lines + 1] = line end
  end
  if lines[#lines]:match('%[C%]: in function .xpcall.') then lines[#lines] = nil end
  -- A syntax error has no way there.
  if lines[#lines] == 'stack traceback:' then lines = { message } end
  io.stderr:write(table.concat(lines, '\n'), '\n')
end

-- Calls fn(...) and reports its error. Returns the exit status: what fn returned when that is a number, 0, or 1 after an error.
local function run(fn, ...)
  local arguments, count = { ... }, select('#', ...)
  local ok, status = xpcall(function() return fn(unpack(arguments, 1, count)) end, report)
  if not ok and status then io.stderr:write('tycho: ', status, '\n') end -- where memory is out, report is not called
  return ok and (tonumber(status) or 0) or 1
end

-- The same before a prompt, which Ctrl-C goes to, and which knows the error's frames.
local function run_before_prompt(fn, ...)
  local ok, message, text = require('tycho.repl.evaluate').run(fn, ...)
  if not ok then io.stderr:write(file_of(message) and text or 'tycho: ' .. message, '\n') end
  return ok and 0 or 1
end

local function is_file(path) return lfs.attributes(path, 'mode') == 'file' end

-- Names of the .lua files in folder, without the ending, sorted.
local function scripts(folder)
  local names = {}
  if lfs.attributes(folder, 'mode') == 'directory' then
    for entry in lfs.dir(folder) do
      local name = entry:match('^([^.].*)%.lua$')
      if name then names[#names + 1] = name end
    end
  end
  table.sort(names)
  return names
end

local function subcommand_path(name) return ('%s/lua/tycho/cli/%s.lua'):format(root, name) end

local function help()
  print(usage)
  print('subcommands:')
  for _, name in ipairs(scripts(root .. '/lua/tycho/cli')) do
    local first = io.lines(subcommand_path(name))() or ''
    print(('  %-10s %s'):format(name, first:match('^%-%-%s*(.*)$') or ''))
  end
  local experiments = scripts(root .. '/experiments')
  if #experiments > 0 then
    print('experiments:')
    for _, name in ipairs(experiments) do
      local first = io.lines(('%s/experiments/%s.lua'):format(root, name))() or ''
      print(('  experiments/%s.lua  %s'):format(name, first:match('^%-%-%s*(.*)$') or ''))
    end
  end
end

-- Raises a sentence with the nearest script or subcommand.
local function unknown(name)
  local folder, base = name:match('^(.*)/([^/]*)$')
  local candidates = {}
  for _, script in ipairs(scripts(folder or '.')) do candidates[#candidates + 1] = (folder and folder .. '/' or '') .. script .. '.lua' end
  if folder ~= 'experiments' then
    for _, script in ipairs(scripts(root .. '/experiments')) do candidates[#candidates + 1] = 'experiments/' .. script .. '.lua' end
  end
  if not folder then
    for _, subcommand in ipairs(scripts(root .. '/lua/tycho/cli')) do candidates[#candidates + 1] = subcommand end
  end
  local short, full = {}, {}
  for i, candidate in ipairs(candidates) do
    short[i] = candidate:match('([^/]*)$'):gsub('%.lua$', '')
    full[short[i]] = full[short[i]] or candidate
  end
  local near = nearest((base or name):gsub('%.lua$', ''), short)
  local hint = near and ("did you mean '%s'?"):format(full[near]) or './tycho --help lists what there is'
  if name:match('%.lua$') or folder then error(("no script '%s'; %s"):format(name, hint), 0) end
  error(("no script or subcommand '%s'; %s"):format(name, hint), 0)
end

-- The function to run for a script or a subcommand.
local function resolve(name)
  if is_file(name) then
    local chunk, message = loadfile(name)
    if not chunk then error(message, 0) end
    return chunk
  end
  if name:match('^[%w_]+$') and is_file(subcommand_path(name)) then
    local subcommand = require('tycho.cli.' .. name)
    return function(...) return subcommand { ... } end
  end
  unknown(name)
end

local function run_code(code)
  local chunk, message = loadstring(code, '=(command line)')
  if not chunk then error(message, 0) end
  return chunk()
end

-- Global 'arg' as luajit sets it: the script at 0, its arguments from 1.
local function set_arg(name, arguments)
  local list = { [0] = name, [-1] = 'tycho' }
  for i, argument in ipairs(arguments) do list[i] = argument end
  rawset(_G, 'arg', list)
end

local function parse(...)
  local given = { ... }
  local command = { code = {}, arguments = {} }
  local i = 1
  while given[i] and given[i]:sub(1, 1) == '-' do
    local option = given[i]
    if option == '-e' then
      i = i + 1
      if not given[i] then error('-e needs code, as in -e "print(1)"', 0) end
      table.insert(command.code, given[i])
    elseif option == '-i' then
      command.prompt = true
    elseif option == '-m' or option == '--multirun' then
      table.insert(command.arguments, '-m')
    elseif option == '--help' or option == '-h' then
      command.help = true
    elseif option == '--version' or option == '-v' then
      command.version = true
    else
      error(("unknown option '%s'; options are -e CODE, -i, -m, --help and --version"):format(option), 0)
    end
    i = i + 1
  end
  command.name = given[i]
  for k = i + 1, #given do table.insert(command.arguments, given[k]) end
  return command
end

local function main(...)
  local command = parse(...)
  if command.help then return help() end
  if command.version then
    print(('Tycho %s, %s, %s'):format(require('tycho').version, jit.version, jit.arch))
    return 0
  end
  set_arg(command.name, command.arguments)
  if os.getenv 'TYCHO_PARENT' then require('tycho.sweep.process').follow_parent() end
  -- Code and the prompt may say tycho without a require; it loads when first named, so that small things start at once.
  local interactive = command.prompt or command.code[1] or not command.name
  if interactive then
    setmetatable(_G, {
      __index = function(t, key)
        if key ~= 'tycho' then return nil end
        local tycho = require 'tycho'
        rawset(t, key, tycho)
        return tycho
      end,
    })
  end
  if not command.name and command.arguments[1] == '-m' then error('-m needs a script, as in ./tycho -m experiments/main.lua seed=1,2', 0) end
  local status, go = 0, command.prompt and run_before_prompt or run
  for _, code in ipairs(command.code) do
    status = go(run_code, code)
    if status ~= 0 and not command.prompt then return status end
  end
  if command.name then status = go(resolve(command.name), unpack(command.arguments)) end
  if command.prompt or not (command.name or command.code[1]) then return require('tycho.repl')() end
  return status
end

return function(...) return run(main, ...) end
