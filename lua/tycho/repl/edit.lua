-- A line editor over a raw terminal: history, cursor keys, Ctrl-A E B F K U W L D C, and completion with TAB. One line at a time;
-- a line longer than the terminal is shown around the cursor.
local ffi = require 'ffi'

ffi.cdef [[
typedef struct { uint32_t iflag, oflag, cflag, lflag; uint8_t line; uint8_t cc[32]; uint32_t ispeed, ospeed; } tycho_termios;
int tcgetattr(int fd, tycho_termios *t);
int tcsetattr(int fd, int when, const tycho_termios *t);
long read(int fd, void *buffer, size_t count);
int ioctl(int fd, unsigned long request, ...);
]]
local C = ffi.C
local ICANON, ECHO, ISIG, IEXTEN, IXON, ICRNL = 2, 8, 1, 0x8000, 0x400, 0x100
local VMIN, VTIME, NOW = 6, 5, 0
local TIOCGWINSZ = 0x5413

local M = {}

local function raw_mode()
  local saved = ffi.new('tycho_termios')
  if C.tcgetattr(0, saved) ~= 0 then return nil end
  local raw = ffi.new('tycho_termios', saved)
  raw.lflag = bit.band(raw.lflag, bit.bnot(ICANON + ECHO + ISIG + IEXTEN))
  raw.iflag = bit.band(raw.iflag, bit.bnot(IXON + ICRNL))
  raw.cc[VMIN], raw.cc[VTIME] = 1, 0
  C.tcsetattr(0, NOW, raw)
  return saved
end

local size = ffi.new('uint16_t[4]')
local function columns()
  return C.ioctl(1, TIOCGWINSZ, size) == 0 and size[1] > 0 and size[1] or 80
end

local byte = ffi.new('uint8_t[1]')
local function read_byte()
  return C.read(0, byte, 1) == 1 and byte[0] or nil
end

-- Names of the keys that arrive as escape sequences.
local sequences = { ['[A'] = 'up', ['[B'] = 'down', ['[C'] = 'right', ['[D'] = 'left', ['[H'] = 'home', ['[F'] = 'end', ['OH'] = 'home',
  ['OF'] = 'end', ['[1~'] = 'home', ['[4~'] = 'end', ['[3~'] = 'delete' }
local controls = { [1] = 'home', [2] = 'left', [3] = 'cancel', [4] = 'eof', [5] = 'end', [6] = 'right', [8] = 'backspace',
  [9] = 'tab', [10] = 'enter', [11] = 'kill', [12] = 'clear', [13] = 'enter', [14] = 'down', [16] = 'up', [21] = 'kill_left',
  [23] = 'kill_word', [127] = 'backspace' }

local function read_key()
  local b = read_byte()
  if not b then return 'closed' end
  if b == 27 then
    local text = string.char(read_byte() or 0)
    if text ~= '[' and text ~= 'O' then return nil end
    repeat
      local c = string.char(read_byte() or 0)
      text = text .. c
    until c:match('[%a~]') or c == '\0'
    return sequences[text]
  end
  if b < 32 or b == 127 then return controls[b] end
  return nil, string.char(b)
end

-- Bytes of the character that ends before, or begins at, a position: UTF-8 continuation bytes stay with their character.
local function step_left(text, at)
  repeat at = at - 1 until at <= 0 or bit.band(text:byte(at + 1), 0xc0) ~= 0x80
  return math.max(at, 0)
end
local function step_right(text, at)
  repeat at = at + 1 until at >= #text or bit.band(text:byte(at + 1), 0xc0) ~= 0x80
  return math.min(at, #text)
end
local function width(text) return #text - select(2, text:gsub('[\128-\191]', '')) end

-- The piece of text that fits into room columns and holds the cursor, and the cursor's place in it.
local function visible(text, at, room)
  local from = 0
  while width(text:sub(from + 1, at)) > room do from = step_right(text, from) end
  local to = #text
  while width(text:sub(from + 1, to)) > room do to = step_left(text, to) end
  return text:sub(from + 1, to), at - from
end

local function common_start(words)
  local start = words[1]
  for _, word in ipairs(words) do
    while word:sub(1, #start) ~= start do start = start:sub(1, -2) end
  end
  return start
end

local function read_line(prompt, history, complete)
  local text, at, place, draft = '', 0, #history + 1, ''
  local function draw()
    local piece, cursor = visible(text, at, columns() - #prompt - 1)
    io.write('\r\27[K', prompt, piece)
    local back = width(piece:sub(cursor + 1))
    if back > 0 then io.write(('\27[%dD'):format(back)) end
    io.flush()
  end
  local function insert(piece)
    text = text:sub(1, at) .. piece .. text:sub(at + 1)
    at = at + #piece
  end
  local function recall(to)
    if to < 1 or to > #history + 1 then return end
    if place == #history + 1 then draft = text end
    place = to
    text = history[to] or draft
    at = #text
  end
  local actions = {
    left = function() at = step_left(text, at) end,
    right = function() at = step_right(text, at) end,
    home = function() at = 0 end,
    ['end'] = function() at = #text end,
    up = function() recall(place - 1) end,
    down = function() recall(place + 1) end,
    kill = function() text = text:sub(1, at) end,
    kill_left = function() text, at = text:sub(at + 1), 0 end,
    clear = function() io.write('\27[H\27[2J') end,
    backspace = function()
      local from = step_left(text, at)
      text, at = text:sub(1, from) .. text:sub(at + 1), from
    end,
    delete = function() text = text:sub(1, at) .. text:sub(step_right(text, at) + 1) end,
    kill_word = function()
      local kept = text:sub(1, at):gsub('%S*%s*$', '')
      text, at = kept .. text:sub(at + 1), #kept
    end,
    tab = function()
      local words, prefix = complete(text:sub(1, at))
      if #words == 0 then return end
      local start = common_start(words)
      if #start > #prefix then return insert(start:sub(#prefix + 1)) end
      if #words > 1 then io.write('\r\n', table.concat(words, '  ', 1, math.min(#words, 60)), #words > 60 and '  ...' or '', '\r\n') end
    end,
  }
  local result
  draw()
  while true do
    local key, character = read_key()
    if key == 'enter' then
      result = text
      break
    elseif key == 'cancel' then
      result = false
      break
    elseif key == 'closed' or key == 'eof' and text == '' then
      break
    end
    if character then insert(character) elseif actions[key] then actions[key]() elseif key == 'eof' then actions.delete() end
    draw()
  end
  io.write('\n')
  return result
end

-- Reads a line. history: list of earlier lines; complete(text) -> words, prefix. Returns the line, nil at the end of input, false when
-- Ctrl-C dropped it. The terminal is left as it was found, after an error too.
function M.line(prompt, history, complete)
  local saved = raw_mode()
  local ok, result = pcall(read_line, prompt, history, complete)
  if saved then C.tcsetattr(0, NOW, saved) end
  if not ok then error(result, 0) end
  return result
end

return M
