-- A line editor over a raw terminal for texts of one or many lines: history with search (Ctrl-R), completion (TAB), pasted blocks, a line with the
-- signature of the function whose arguments are typed, colours. A line longer than the terminal is shown around the cursor.
-- Keys: arrows, Home End, Ctrl-A E B F K U W Y L D C Z, Alt-B F, Alt-Enter for a line break.
local lexer = require 'tycho.repl.lexer'
local terminal = require 'tycho.repl.terminal'
local width, fitting = terminal.width, terminal.fitting

local MENU_ROWS = 8

local Editor = {}
Editor.__index = Editor

-- ---- places in the text: byte counts before the cursor; the bytes of a character stay together ----

local function step_left(text, at)
  repeat at = at - 1 until at <= 0 or bit.band(text:byte(at + 1), 0xc0) ~= 0x80
  return math.max(at, 0)
end
local function step_right(text, at)
  repeat at = at + 1 until at >= #text or bit.band(text:byte(at + 1), 0xc0) ~= 0x80
  return math.min(at, #text)
end
local function word_left(text, at) return #(text:sub(1, at):gsub('[%w_]*[^%w_]*$', '')) end
local function word_right(text, at) return select(2, text:find('^[^%w_]*[%w_]*', at + 1)) end
local function line_start(text, at) return #(text:sub(1, at):match('^(.*\n)') or '') end
local function line_end(text, at) return (text:find('\n', at + 1, true) or #text + 1) - 1 end

-- ---- drawing ----

-- The bytes first..last of text in colours.
function Editor:paint(first, last)
  if not self.colors then return self.text:sub(first, last) end
  local out = {}
  for kind, from, to in lexer.tokens(self.text) do
    if to >= first and from <= last then
      out[#out + 1] = terminal.paint(kind, self.text:sub(math.max(from, first), math.min(to, last)), true)
    end
  end
  return table.concat(out)
end

-- The first and last byte of a line first..last that are shown in room columns: its beginning, or with the cursor in it what is around that.
local function visible(text, first, last, at, room)
  local from = first
  if at and at >= first - 1 and at <= last then
    from = at + 1
    while from > first and width(text:sub(step_left(text, from - 1) + 1, at)) <= room do from = step_left(text, from - 1) + 1 end
  end
  return from, math.min(last, fitting(text, from, room))
end

local function clip(text, room) return text:sub(1, fitting(text, 1, room)) end

-- Words side by side in rows of at most `columns`.
local function menu_rows(words, columns)
  local widest = 0
  for _, word in ipairs(words) do widest = math.max(widest, width(word) + 2) end
  local each, rows = math.max(1, math.floor(columns / widest)), {}
  for i = 1, #words, each do
    if #rows == MENU_ROWS then
      rows[#rows] = ('... %d more'):format(#words - (i - 1 - each))
      break
    end
    local row = {}
    for j = i, math.min(i + each - 1, #words) do row[#row + 1] = words[j] .. (' '):rep(widest - width(words[j])) end
    rows[#rows + 1] = table.concat(row)
  end
  return rows
end

-- Draws the text below what was there before the prompt, then the rows below it, and puts the cursor in its place.
function Editor:draw(below)
  local columns, rows = terminal.size()
  local text, room = self.text, math.max(columns - #self.prompt - 1, 4)
  local lines, cursor_line = {}, 1
  local first = 1
  repeat
    local last = line_end(text, first - 1)
    lines[#lines + 1] = { first, last }
    if self.at >= first - 1 and self.at <= last then cursor_line = #lines end
    first = last + 2
  until last >= #text
  below = below or {}
  local shown = math.max(1, rows - 1 - #below)
  local top = math.max(1, math.min(cursor_line - math.floor(shown / 2), #lines - shown + 1))
  local out, cursor_column = {}, 0
  for i = top, math.min(#lines, top + shown - 1) do
    local is_here = i == cursor_line
    local from, to = visible(text, lines[i][1], lines[i][2], is_here and self.at, room)
    if is_here then cursor_column = #self.prompt + width(text:sub(from, self.at)) end
    out[#out + 1] = terminal.paint('prompt', i == 1 and self.prompt or self.continuation, self.colors) .. self:paint(from, to)
  end
  for _, row in ipairs(below) do out[#out + 1] = terminal.paint('hint', clip(row, columns - 1), self.colors) end
  io.write('\r', self.row > 0 and ('\27[%dA'):format(self.row) or '', '\27[J', table.concat(out, '\r\n'))
  self.row = cursor_line - top
  if #out - 1 > self.row then io.write(('\27[%dA'):format(#out - 1 - self.row)) end
  io.write('\r', cursor_column > 0 and ('\27[%dC'):format(cursor_column) or '')
  io.flush()
end

-- Leaves the text as it stands, with the cursor behind it.
function Editor:leave()
  self.at = #self.text
  self:draw()
end

-- ---- changing ----

function Editor:insert(piece)
  self.text = self.text:sub(1, self.at) .. piece .. self.text:sub(self.at + 1)
  self.at = self.at + #piece
end

-- Removes the bytes between two places; what Ctrl-Y puts back.
function Editor:cut(from, to)
  self.killed = self.text:sub(from + 1, to)
  self.text, self.at = self.text:sub(1, from) .. self.text:sub(to + 1), from
end

function Editor:set(text) self.text, self.at = text, #text end

function Editor:recall(place)
  local history = self.history
  if place < 1 or place > #history + 1 then return end
  if self.place == #history + 1 then self.draft = self.text end
  self.place = place
  self:set(history[place] or self.draft)
end

-- One line up or down in the text, or in the history where there is none.
function Editor:move(step)
  local text, start = self.text, line_start(self.text, self.at)
  local column = self.at - start
  if step < 0 and start > 0 then
    local above = line_start(text, start - 1)
    self.at = math.min(above + column, start - 1)
  elseif step > 0 and line_end(text, self.at) < #text then
    local below = line_end(text, self.at) + 1
    self.at = math.min(below + column, line_end(text, below))
  else
    self:recall(self.place + step)
  end
end

local function common_start(words)
  local start = words[1]
  for _, word in ipairs(words) do
    while word:sub(1, #start) ~= start do start = start:sub(1, -2) end
  end
  return start
end

function Editor:complete()
  local words, prefix = self.completions(self.text:sub(1, self.at))
  if #words == 0 then return end
  local start = common_start(words)
  if #start > #prefix then
    self:insert(start:sub(#prefix + 1))
  elseif #words > 1 then
    self.menu = menu_rows(words, (terminal.size()))
  end
end

-- Searches backwards in the history while a pattern is typed. Returns the key that ended it.
function Editor:search()
  local pattern, place, before = '', self.place, self.text
  local function find(from)
    for i = from, 1, -1 do
      if self.history[i]:lower():find(pattern:lower(), 1, true) then
        place = i
        self:set(self.history[i])
        return true
      end
    end
  end
  local found = true
  while true do
    self:draw { ("%ssearch: %s"):format(found and '' or 'nothing found; ', pattern) }
    local key, typed = terminal.read_key()
    if key == 'search' then
      found = find(place - 1)
    elseif key == 'backspace' then
      pattern, place = pattern:sub(1, step_left(pattern, #pattern)), #self.history + 1
      found = pattern == '' or find(#self.history)
    elseif typed then
      pattern = pattern .. typed
      found = find(math.min(place, #self.history))
    else
      if key == 'cancel' or key == 'abort' then self:set(before) else self.place = place end
      return key
    end
  end
end

local actions = {}
function actions.left(e) e.at = step_left(e.text, e.at) end
function actions.right(e) e.at = step_right(e.text, e.at) end
function actions.word_left(e) e.at = word_left(e.text, e.at) end
function actions.word_right(e) e.at = word_right(e.text, e.at) end
function actions.home(e) e.at = line_start(e.text, e.at) end
actions['end'] = function(e) e.at = line_end(e.text, e.at) end
function actions.up(e) e:move(-1) end
function actions.down(e) e:move(1) end
function actions.newline(e) e:insert('\n') end
function actions.kill(e)
  local stop = line_end(e.text, e.at)
  e:cut(e.at, stop == e.at and math.min(stop + 1, #e.text) or stop)
end
function actions.kill_left(e) e:cut(line_start(e.text, e.at), e.at) end
function actions.kill_word(e) e:cut(#(e.text:sub(1, e.at):gsub('%S*%s*$', '')), e.at) end
function actions.yank(e) e:insert(e.killed or '') end
function actions.backspace(e)
  local killed = e.killed
  e:cut(step_left(e.text, e.at), e.at)
  e.killed = killed
end
function actions.delete(e) e.text = e.text:sub(1, e.at) .. e.text:sub(step_right(e.text, e.at) + 1) end
function actions.clear(e)
  io.write('\27[H\27[2J')
  e.row = 0
end
function actions.suspend(e)
  e:leave()
  terminal.suspend()
  e.row = 0
end
function actions.tab(e) e:complete() end

-- ---- reading ----

-- Waits for a key; while none comes, idle() may print above the prompt, and is told how by a function that makes room.
function Editor:next_key()
  while self.idle and not terminal.is_pending(500) do
    self.idle(function(print_it)
      io.write('\r', self.row > 0 and ('\27[%dA'):format(self.row) or '', '\27[J')
      print_it()
      self.row = 0
      self:draw()
    end)
  end
  return terminal.read_key()
end

local function read(self)
  while true do
    if not terminal.is_pending(0) then
      local below = self.menu or { self.hint(self.text:sub(1, self.at)) }
      self:draw(below)
    end
    local key, typed = self:next_key()
    self.menu = nil
    if key == 'search' then key = self:search() end
    if typed then
      self:insert(typed)
    elseif key == 'enter' and self.is_whole(self.text) then
      self:leave()
      return self.text
    elseif key == 'enter' then
      self:insert('\n')
    elseif key == 'cancel' then
      self:leave()
      return false
    elseif key == 'closed' or key == 'eof' and self.text == '' then
      self:leave()
      return nil
    elseif key == 'eof' then
      actions.delete(self)
    elseif actions[key] then
      actions[key](self)
    end
  end
end

-- Reads a text. options: prompt, continuation (of further lines, as wide as the prompt), history (list of earlier texts), completions(text before the
-- cursor) -> words, the part of them that is typed; hint(text before the cursor) -> a line or nil; is_whole(text): whether Enter ends it;
-- idle(show) [opt]: called while nothing is typed; colors. Returns the text, nil at the end of input, false when Ctrl-C dropped it.
return function(options)
  local self = setmetatable({ text = '', at = 0, row = 0, place = #options.history + 1, draft = '' }, Editor)
  for key, value in pairs(options) do self[key] = value end
  return terminal.with_raw_mode(read, self)
end
