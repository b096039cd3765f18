-- Where an error happened, for people: each frame of their own code with its source line and its locals, tensors with their shapes.
-- Frames of the framework are counted, not shown, but for those of an error that is the framework's own.
local lib = require 'tycho.lib'

local M = {}

local FRAMES, LOCALS, TEXT = 10, 12, 60
local framework = lib.root .. '/lua/tycho/'
local hidden = { framework .. 'repl/', framework .. 'launch.lua' }

M.inputs = {} -- chunk name -> text typed at the prompt

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

-- 'name = value' of the locals of a frame, those that are hidden by a later one of the same name left out.
local function locals_of(level)
  local names, values = {}, {}
  for i = 1, 250 do
    local name, value = debug.getlocal(level + 1, i)
    if not name then break end
    if name:match('^[%a_]') then
      if values[name] == nil then names[#names + 1] = name end
      values[name] = brief(value)
    end
  end
  local out = {}
  for i, name in ipairs(names) do
    if i > LOCALS then
      out[#out + 1] = ('and %d more'):format(#names - LOCALS)
      break
    end
    out[i] = ('%s = %s'):format(name, values[name])
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

-- The message and the frames above, the innermost first, as text. level: where to begin, as debug.traceback has it.
function M.traceback(message, level)
  local lines, frames, skipped = { tostring(message) }, 0, 0
  for at = (level or 1) + 1, 200 do
    local info = debug.getinfo(at, 'Slnf')
    if not info then break end
    local is_own = starts(info.source, '@' .. framework)
    if is_hidden(info.source) and frames + skipped > 0 then break end
    local is_at_fault = is_own and frames == 0 and skipped == 0 and starts(tostring(message), info.short_src .. ':' .. info.currentline)
    if info.what ~= 'C' and not is_hidden(info.source) then
      if is_own and not is_at_fault then
        skipped = skipped + 1
      else
        frames = frames + 1
        if frames <= FRAMES then
          local name = name_of(info)
          lines[#lines + 1] = ('  %s:%d%s'):format(info.short_src, info.currentline, name and ' in ' .. name or '')
          local text = source_line(info)
          if text then lines[#lines + 1] = '    > ' .. text:match('^%s*(.-)%s*$') end
          local locals = locals_of(at)
          if #locals > 0 then lines[#lines + 1] = '      ' .. table.concat(locals, ', ') end
        end
      end
    end
  end
  if frames > FRAMES then lines[#lines + 1] = ('  and %d frames more'):format(frames - FRAMES) end
  return table.concat(lines, '\n')
end

return M
