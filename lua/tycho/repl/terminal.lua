-- The terminal under the prompt: raw mode, keys, size, the width of text, colours. Knows nothing of what is typed.
local ffi = require 'ffi'

ffi.cdef [[
typedef struct { uint32_t iflag, oflag, cflag, lflag; uint8_t line; uint8_t cc[32]; uint32_t ispeed, ospeed; } tycho_termios;
int tcgetattr(int fd, tycho_termios *t);
int tcsetattr(int fd, int when, const tycho_termios *t);
long read(int fd, void *buffer, size_t count);
int ioctl(int fd, unsigned long request, ...);
typedef struct { int fd; short events, revents; } tycho_pollfd;
int poll(tycho_pollfd *list, unsigned long count, int milliseconds);
int kill(int process, int signal);
]]
pcall(ffi.cdef, 'int isatty(int fd);')
pcall(ffi.cdef, 'int getpid(void);')
local C = ffi.C
local ICANON, ECHO, ISIG, IEXTEN, IXON, ICRNL = 2, 8, 1, 0x8000, 0x400, 0x100
local VMIN, VTIME, NOW = 6, 5, 0
local TIOCGWINSZ, FIONREAD = 0x5413, 0x541b
local POLLIN, EINTR = 1, 4
local SIGTSTP = 20
local PASTE_ON, PASTE_OFF = '\27[?2004h', '\27[?2004l'

local M = {}

-- Whether a person types and reads here, on a terminal that moves its cursor.
function M.is_interactive()
  return C.isatty(0) == 1 and C.isatty(1) == 1 and os.getenv('TERM') ~= 'dumb' and os.getenv('TERM') ~= nil
end

-- Whether the input comes from a terminal of any kind.
function M.has_person() return C.isatty(0) == 1 end

-- ---- colours ----

local styles = { keyword = '35', string = '32', number = '36', comment = '90', prompt = '1', hint = '90', error = '31', place = '36' }

-- Whether text to this file descriptor is coloured: NO_COLOR and terminals without are respected.
function M.has_colors(fd)
  local no_color, term = os.getenv('NO_COLOR'), os.getenv('TERM')
  return (no_color == nil or no_color == '') and term ~= nil and term ~= 'dumb' and C.isatty(fd) == 1
end

-- text in a style of the table above; as it is without colours.
function M.paint(style, text, colors)
  if not colors or text == '' or not styles[style] then return text end
  return ('\27[%sm%s\27[0m'):format(styles[style], text)
end

-- ---- size and width ----

local size = ffi.new('uint16_t[4]')

-- Columns and rows; 80 and 24 where nobody knows.
function M.size()
  if C.ioctl(1, TIOCGWINSZ, size) == 0 and size[1] > 0 then return size[1], math.max(size[0], 2) end
  return 80, 24
end

-- Ranges of characters that take two columns (East Asian and emoji), and those that take none (accents over the one before).
local wide = { { 0x1100, 0x115f }, { 0x2e80, 0xa4cf }, { 0xac00, 0xd7a3 }, { 0xf900, 0xfaff }, { 0xfe30, 0xfe6f }, { 0xff00, 0xff60 },
  { 0xffe0, 0xffe6 }, { 0x1f300, 0x1f64f }, { 0x1f900, 0x1f9ff }, { 0x20000, 0x3fffd } }

local function columns_of(character)
  local first = character:byte(1)
  if first < 0x80 then return 1 end
  local code = first >= 0xf0 and first % 8 or first >= 0xe0 and first % 16 or first % 32
  for i = 2, #character do code = code * 64 + character:byte(i) % 64 end
  if code >= 0x300 and code <= 0x36f then return 0 end
  for _, range in ipairs(wide) do
    if code >= range[1] and code <= range[2] then return 2 end
  end
  return 1
end

-- Columns that UTF-8 text takes.
function M.width(text)
  if not text:find('[\128-\255]') then return #text end
  local n = 0
  for character in text:gmatch('[%z\1-\127\192-\255][\128-\191]*') do n = n + columns_of(character) end
  return n
end

-- The end of the last character of text from position `from` on that still fits into room columns.
function M.fitting(text, from, room)
  local last = from - 1
  while last < #text do
    local stop = last + 1
    while stop < #text and bit.band(text:byte(stop + 1), 0xc0) == 0x80 do stop = stop + 1 end
    room = room - columns_of(text:sub(last + 1, stop))
    if room < 0 then break end
    last = stop
  end
  return last
end

-- ---- keys ----

local byte, poll = ffi.new('uint8_t[1]'), ffi.new('tycho_pollfd[1]', { { fd = 0, events = POLLIN } })

-- Whether a byte arrives within so many milliseconds.
function M.is_pending(milliseconds) return C.poll(poll, 1, milliseconds) > 0 end

local ahead = ffi.new('int[1]') -- bytes that were typed before raw mode; among them Linux gives Ctrl-D as 0

local function read_byte()
  local n
  repeat n = C.read(0, byte, 1) until n >= 0 or ffi.errno() ~= EINTR
  if n ~= 1 then return nil end
  if ahead[0] == 0 then return byte[0] end
  ahead[0] = ahead[0] - 1
  return byte[0] == 0 and 4 or byte[0]
end

-- Names of the keys that arrive as escape sequences, and of control characters.
local sequences = { ['[A'] = 'up', ['[B'] = 'down', ['[C'] = 'right', ['[D'] = 'left', ['[H'] = 'home', ['[F'] = 'end', ['OA'] = 'up',
  ['OB'] = 'down', ['OC'] = 'right', ['OD'] = 'left', ['OH'] = 'home', ['OF'] = 'end', ['[1~'] = 'home', ['[4~'] = 'end', ['[3~'] = 'delete',
  ['[1;5C'] = 'word_right', ['[1;5D'] = 'word_left', ['[200~'] = 'paste', b = 'word_left', f = 'word_right', ['\r'] = 'newline', ['\n'] = 'newline' }
local controls = { [1] = 'home', [2] = 'left', [3] = 'cancel', [4] = 'eof', [5] = 'end', [6] = 'right', [7] = 'abort', [8] = 'backspace',
  [9] = 'tab', [10] = 'enter', [11] = 'kill', [12] = 'clear', [13] = 'enter', [14] = 'down', [16] = 'up', [18] = 'search', [20] = 'swap',
  [21] = 'kill_left', [23] = 'kill_word', [25] = 'yank', [26] = 'suspend', [127] = 'backspace' }
local PASTE_END = '\27[201~'

-- A pasted block; lines end in \n whatever the terminal sent.
local function read_paste()
  local pieces = {}
  repeat
    local b = read_byte()
    pieces[#pieces + 1] = b and string.char(b)
    local ends = b == 126 and table.concat(pieces, '', math.max(1, #pieces - #PASTE_END + 1)) == PASTE_END
  until ends or not b
  return (table.concat(pieces):gsub(PASTE_END:gsub('%[', '%%[') .. '$', ''):gsub('\r\n?', '\n'))
end

local function read_escape()
  if not M.is_pending(50) then return 'escape' end
  local text = string.char(read_byte() or 0)
  if text == '[' or text == 'O' then
    repeat
      local c = string.char(read_byte() or 0)
      text = text .. c
    until c:match('[%a~]') or c == '\0'
  end
  local name = sequences[text]
  if name == 'paste' then return nil, read_paste() end
  return name or 'unknown'
end

-- The next key: its name, or nil and the text that it types. 'closed' at the end of input.
function M.read_key()
  local b = read_byte()
  if not b then return 'closed' end
  if b == 27 then return read_escape() end
  if b < 32 or b == 127 then return controls[b] or 'unknown' end
  local text = string.char(b)
  for _ = 1, b >= 0xf0 and 3 or b >= 0xe0 and 2 or b >= 0xc0 and 1 or 0 do text = text .. string.char(read_byte() or 0) end
  return nil, text
end

-- ---- raw mode ----

local saved = ffi.new('tycho_termios')

local function make_raw()
  if C.tcgetattr(0, saved) ~= 0 then return false end
  local raw = ffi.new('tycho_termios', saved)
  raw.lflag = bit.band(raw.lflag, bit.bnot(ICANON + ECHO + ISIG + IEXTEN))
  raw.iflag = bit.band(raw.iflag, bit.bnot(IXON + ICRNL))
  raw.cc[VMIN], raw.cc[VTIME] = 1, 0
  C.tcsetattr(0, NOW, raw)
  if C.ioctl(0, FIONREAD, ahead) ~= 0 then ahead[0] = 0 end
  io.write(PASTE_ON)
  return true
end
local function make_cooked()
  io.write(PASTE_OFF, '\r\n')
  io.flush()
  C.tcsetattr(0, NOW, saved)
end

-- Runs fn(...) in raw mode and returns its result; then a new line begins. The terminal is left as it was found, after an error too.
function M.with_raw_mode(fn, ...)
  local is_raw = make_raw()
  local ok, result = pcall(fn, ...)
  if is_raw then make_cooked() end
  if not ok then error(result, 0) end
  return result
end

-- Hands the terminal to the shell until it gives it back (Ctrl-Z, then fg).
function M.suspend()
  make_cooked()
  C.kill(C.getpid(), SIGTSTP)
  make_raw()
end

return M
