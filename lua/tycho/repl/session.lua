-- What a prompt does with a text: a command, or Lua that is evaluated and printed. Keeps the variables, the results and what was typed; knows no
-- terminal, so that a prompt may be here or in another process.
local commands = require 'tycho.repl.commands'
local complete = require 'tycho.repl.complete'
local evaluate = require 'tycho.repl.evaluate'
local printer = require 'tycho.repl.print'
local terminal = require 'tycho.repl.terminal'
local trace = require 'tycho.repl.trace'

local KEPT = 100 -- results in Out
local LARGE = 16 * 2^20 -- bytes of a tensor that Out does not keep alive

-- Functions that every prompt has.
local given = { plot = setmetatable({}, { __call = function(_, ...) return require 'tycho.plot'(...) end,
  __index = function(_, name) return require('tycho.plot')[name] end }) }
for _, name in ipairs { 'hist', 'imshow', 'grid' } do given[name] = function(...) return require('tycho.plot')[name](...) end end

local Session = {}
Session.__index = Session

-- The name under which the next text is known in messages and in Out.
function Session:name() return ('In[%d]'):format(self.count + 1) end

-- A line or more of what is said to the person; they are results, or messages where status is 'error'.
function Session:print(text, status) self.write(text .. '\n', status) end

local function is_large(value)
  local tensor = package.loaded['tycho.tensor']
  return type(tensor) == 'table' and tensor.is_tensor(value) and value:numel() * value.type.size > LARGE
end

local function keep(self, value)
  rawset(self.environment, '_', value)
  if value == nil then return end
  if is_large(value) then self.large[self.count] = value else rawset(self.out, self.count, value) end
  rawset(self.out, self.count - KEPT, nil)
end

function Session:show(value)
  local ok, text = pcall(printer.value, value, { width = self.columns() })
  self:print(ok and text or ('<cannot be printed: %s>'):format(tostring(text)))
end

-- An error's frames can be looked into until the next one, or until memory ends; while somebody does, and in a pause, they stay.
local function failed(self, message)
  self:print(message, 'error')
  if self.at == 0 then self.frames = trace.last end
  return false
end

local function run_lua(self, text)
  local source, hidden = text:gsub(';%s*$', '')
  local name = self:name()
  local chunk, message = evaluate.compile(source, self.environment, name)
  if not chunk then
    self:print(message == true and 'the input ended inside a statement' or message, 'error')
    return false
  end
  trace.inputs[name] = source
  self.count = self.count + 1
  local ok, results, where = evaluate.run(chunk)
  if not ok then return failed(self, results:match('interrupted$') and results or where) end
  table.insert(self.inputs, evaluate.as_script(source, results.n > 0 and hidden == 0))
  if results.n > 0 then keep(self, results[1]) end
  if hidden == 0 then
    for i = 1, results.n do self:show(results[i]) end
  end
  return true
end

local function run_command(self, name, argument)
  local ok, results, where = evaluate.run(commands.run, self, name, argument)
  if ok then return results[1] ~= false end
  if results:match('interrupted$') then return failed(self, results) end
  local is_sentence = not results:match('^[^\n:]+:%d+: ')
  if is_sentence then
    self:print(results, 'error')
    return false
  end
  return failed(self, where)
end

-- Runs a text; false when it failed. Never raises.
function Session:run(text)
  if text:match('^%s*$') then return true end
  local name, argument = commands.parse(text)
  if name then return run_command(self, name, argument) end
  return run_lua(self, text)
end

local function equip(self, environment)
  rawset(environment, 'Out', self.out)
  for name, fn in pairs(given) do
    if rawget(environment, name) == nil then rawset(environment, name, fn) end
  end
end

-- Goes by frames outwards (1) or inwards (-1), where texts then run with that frame's variables. Frame 0 is the session itself.
function Session:move(by)
  local to = self.at + by
  if #self.frames == 0 then error('there is no error whose frames could be looked into', 0) end
  if to > #self.frames then error('this is the outermost frame; :down goes inwards', 0) end
  if to < self.innermost then error('this is the innermost place; :up goes outwards', 0) end
  if self.at == 0 then self.frames = { unpack(self.frames) } end
  self.at = to
  if to == 0 then
    self.environment = self.own
    return self:print 'out of the frames, with the variables of the prompt'
  end
  local frame, lines = self.frames[to], {}
  self.environment = frame.environment
  local meta = getmetatable(self.environment)
  if meta.globals then meta.globals = self.own end
  trace.describe(lines, frame)
  equip(self, self.environment)
  self:print(('frame %d of %d\n%s'):format(to, #self.frames, table.concat(lines, '\n')))
end

-- Name -> value of the session's own variables, and of the function that it is in.
function Session:variables()
  local out, meta = {}, getmetatable(self.environment)
  for name, value in pairs(self.environment) do
    if type(name) == 'string' and name ~= '_' and name ~= 'Out' and value ~= given[name] then out[name] = value end
  end
  for _, name in ipairs(meta.names and meta.names() or {}) do out[name] = self.environment[name] end
  return out
end

-- Whether a text needs no more lines.
function Session.is_whole(_, text)
  return commands.parse(text) ~= nil or evaluate.is_whole(text)
end

-- Words that may follow the text before the cursor, and their part that is typed. Never raises.
function Session:completions(text)
  local ok, words, prefix = pcall(complete.candidates, self.environment, text)
  if ok then return words, prefix end
  return {}, ''
end

-- The signature of the function whose arguments the text is in, in one line, or nil. Never raises.
function Session:hint(text)
  local ok, line = pcall(require('tycho.repl.hint'), self.environment, text)
  return ok and line or nil
end

local M = { is_whole = Session.is_whole }

-- options: write(text, status) takes what is to be read; environment [opt]: the variables; columns() [opt]: how wide what is printed may be;
-- frames [opt]: a pause's, as trace.frames has them, the first of which is where the session is.
return setmetatable(M, { __call = function(_, options)
  local large, frames = setmetatable({}, { __mode = 'v' }), options.frames or {}
  local own = frames[1] and frames[1].environment or options.environment or evaluate.environment()
  local first = #frames > 0 and 1 or 0
  local self = setmetatable({ count = 0, inputs = {}, large = large, out = setmetatable({}, { __index = large }), write = options.write,
    environment = own, own = own, frames = frames, at = first, innermost = first, columns = options.columns or terminal.size }, Session)
  equip(self, own)
  return self
end })
