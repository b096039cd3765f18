-- Where an error happened, for people: each frame of their own code with its source line and its locals, tensors with their shapes.
-- Frames of the framework are counted, not shown, but for those of an error that is the framework's own.
local frame = require 'tycho.repl.frame'
local lib = require 'tycho.lib'
local storages = require 'tycho.storage'

local M = {}

local FRAMES, LOCALS, TEXT = 10, 12, 60
local framework = lib.root .. '/lua/tycho/'
local hidden = { framework .. 'repl/', framework .. 'launch.lua' }

M.inputs = {} -- chunk name -> text typed at the prompt
M.last = {} -- frames of the last error; they go where memory ends, as their variables hold tensors

function storages.let_go()
  local count = #M.last
  for i = 1, count do M.last[i] = nil end
  return count > 0
end

local function starts(text, prefix) return text:sub(1, #prefix) == prefix end

local function source_line(info)
  local typed = M.inputs[info.source:sub(2)]
  if typed then
    local number = 0
    for line in (typed .. '\n'):gmatch('([^\n]*)\n') do
      number = number + 1
      if number == info.currentline then return line end
    end
  end
  local file = info.source:sub(1, 1) == '@' and io.open(info.source:sub(2), 'rb')
  if not file then return nil end
  local number = 0
  for line in file:lines() do
    number = number + 1
    if number == info.currentline then
      file:close()
      return line
    end
  end
  file:close()
end

-- A value in a few words.
local function brief(value)
  local kind = type(value)
  if kind == 'string' then
    local text = ('%q'):format(value):gsub('\\\n', '\\n')
    return #text > TEXT and text:sub(1, TEXT) .. '..."' or text
  end
  if kind == 'table' then
    local tensor = require 'tycho.tensor'
    if tensor.is_tensor(value) then return ('tensor %s %s'):format(tensor.shape_text(value), value.dtype) end
    local Module = package.loaded['tycho.nn.Module']
    if type(Module) == 'table' and Module.is_module(value) then return ('module of %d parameters'):format(value:num_parameters()) end
    local count = 0
    for _ in pairs(value) do count = count + 1 end
    return count == 0 and '{}' or ('table of %d'):format(count)
  end
  if kind == 'function' then
    local info = debug.getinfo(value, 'S')
    return info.what == 'C' and 'builtin function' or ('function of %s:%d'):format(info.short_src:match('[^/]*$'), info.linedefined)
  end
  return tostring(value)
end
M.brief = brief

-- 'name = value' of what an environment (frame.lua) has.
local function locals_of(environment)
  local names, out = getmetatable(environment).names(), {}
  for i, name in ipairs(names) do
    if i > LOCALS then
      out[#out + 1] = ('and %d more'):format(#names - LOCALS)
      break
    end
    out[i] = ('%s = %s'):format(name, brief(environment[name]))
  end
  return out
end

local function name_of(info)
  if info.what == 'main' then return info.source:sub(1, 1) == '@' and 'the file itself' or nil end
  return info.name and ('%s'):format(info.name) or ('a function of line %d'):format(info.linedefined)
end

local function is_hidden(source)
  for _, prefix in ipairs(hidden) do
    if starts(source, '@' .. prefix) then return true end
  end
end

-- Frames of people's own code, the innermost first, as a list of {where, source = line or nil, environment}. level: where to begin, as
-- debug.traceback has it; message: the error, if any; view: what makes a frame's environment of a level (of frame.lua).
function M.frames(level, message, view)
  local frames, skipped = {}, 0
  for at = level + 1, 200 do
    local info = debug.getinfo(at, 'Slnf')
    if not info then break end
    local is_own = starts(info.source, '@' .. framework)
    if is_hidden(info.source) and #frames + skipped > 0 then break end
    local is_at_fault = is_own and #frames == 0 and skipped == 0 and starts(tostring(message), info.short_src .. ':' .. info.currentline)
    if info.what ~= 'C' and not is_hidden(info.source) then
      if is_own and not is_at_fault then
        skipped = skipped + 1
      else
        local name = name_of(info)
        frames[#frames + 1] = { where = ('%s:%d%s'):format(info.short_src, info.currentline, name and ' in ' .. name or ''),
          source = source_line(info), environment = view(at) }
      end
    end
  end
  return frames
end

-- Lines that say where a frame is and what its variables hold.
function M.describe(lines, entry)
  lines[#lines + 1] = '  ' .. entry.where
  if entry.source then lines[#lines + 1] = '    > ' .. entry.source:match('^%s*(.-)%s*$') end
  local locals = locals_of(entry.environment)
  if #locals > 0 then lines[#lines + 1] = '      ' .. table.concat(locals, ', ') end
end

-- The message and the frames above as text; the frames stay in M.last. level: where to begin, as debug.traceback has it.
function M.traceback(message, level)
  local lines = { tostring(message) }
  M.last = M.frames((level or 1) + 1, message, frame.snapshot)
  for i = 1, math.min(#M.last, FRAMES) do M.describe(lines, M.last[i]) end
  if #M.last > FRAMES then lines[#lines + 1] = ('  and %d frames more'):format(#M.last - FRAMES) end
  return table.concat(lines, '\n')
end

return M
