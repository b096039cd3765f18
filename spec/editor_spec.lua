-- The prompt in a pseudo-terminal: editing, history, pasting, completion, narrow and dumb terminals, Ctrl-C.
local lib = require 'tycho.lib'
local files = require 'spec.files'
local pty = require 'spec.pty'
local shell = require 'spec.shell'

local root = require 'lfs'.currentdir()
local home = files.folder()

-- A prompt in a project of its own. options: as pty.start, and env (text before ./tycho).
local function prompt(options)
  options = options or {}
  local p = pty.start(('cd %s && exec env -u NO_COLOR HOME=%s TERM=xterm %s %s/tycho'):format(home, home, options.env or 'NO_COLOR=1', root), options)
  p:expect '1> '
  return p
end
-- Types keys; returns what came until the prompt of line n stands there anew.
local function type_in(p, keys, n)
  p:send(keys)
  return p:expect(('\27[?2004h\r\27[J%d> '):format(n))
end
local function finish(p)
  p:send '\3\4'
  local status, all = p:finish()
  assert(status == 0, ("status %d: %s"):format(status, all:sub(-600)))
  return all
end
local function history_file()
  return (shell(('find %s/.local -type f'):format(home)):gsub('\n.*', ''))
end

describe('the editor', function()
  setup(function() os.execute('mkdir -p ' .. home .. '/.git ' .. home .. '/folder_of_data') end)

  it('edits, recalls and completes', function()
    local p = prompt()
    assert.truthy(type_in(p, '12+3\r', 2):find('\n15\r', 1, true))
    assert.truthy(type_in(p, '\27[A\127' .. '40\r', 3):find('\n52\r', 1, true)) -- 12+3 again, its 3 removed
    assert.truthy(type_in(p, 'ab\27[D\27[Dx = \5 = 9\1\11y = 7; y\r', 4):find('\n7\r', 1, true)) -- Ctrl-E, Ctrl-A, Ctrl-K
    assert.truthy(type_in(p, 'tycho.zero\t{2}:numel()\r', 5):find('\n2\r', 1, true))
    assert.truthy(type_in(p, 'y = "\195\164\195\182"\27[D\127\5; #y\r', 6):find('\n2\r', 1, true)) -- backspace removes a character of two bytes
    finish(p)
  end)
  it('drops a line at Ctrl-C and ends at Ctrl-D', function()
    local p = prompt()
    assert.falsy(type_in(p, 'nonsense\3', 1):find('error', 1, true))
    p:send '\4'
    assert.equal(0, (p:finish()))
  end)
  it('knows what was typed while a line ran, Ctrl-D included', function()
    local p = prompt()
    p:send "io.write('runs ', 'now\\n') io.flush() local t = os.clock() while os.clock() - t < 0.5 do end\r"
    p:expect 'runs now'
    p:send '6 * 7\r'
    p:expect '\n42\r'
    p:send "io.write('runs ', 'again\\n') io.flush() local t = os.clock() while os.clock() - t < 0.5 do end\r"
    p:expect 'runs again'
    p:send '\4'
    assert.equal(0, (p:finish()))
  end)
  it('takes texts of many lines, and recalls them as one', function()
    local p = prompt()
    assert.truthy(type_in(p, 'for i = 1, 2 do\rprint(i * 100)\rend\r', 2):find('100\r\n200\r', 1, true))
    local again = type_in(p, '\27[A\r', 3)
    assert.truthy(again:find('100\r\n200\r', 1, true), again)
    -- up in the text, not in the history: 2 becomes 3
    local changed = type_in(p, '\27[A\27[A\27[A\5\27[D\27[D\27[D\1273\r', 4)
    assert.truthy(changed:find('100\r\n200\r\n300\r', 1, true), changed)
    finish(p)
  end)
  it('runs a pasted block as one', function()
    local p = prompt()
    local out = type_in(p, '\27[200~local a = 4\r\nlocal b = nothing\rprint(a * 5)\r\27[201~\r', 2)
    assert.truthy(out:find('\n20\r', 1, true), out)
    finish(p)
    local file = io.open(history_file(), 'rb')
    assert.truthy(file:read('*a'):find('local a = 4\\nlocal b = nothing\\nprint(a * 5)', 1, true))
    file:close()
  end)
  it('keeps a history for each project, searches it, and survives a damaged one', function()
    local p = prompt()
    type_in(p, 'print("needle" .. 6 * 7)\r', 2)
    type_in(p, 'x = {\r1,\r2 }\r', 3)
    finish(p)
    local path = history_file()
    assert.truthy(path:find('tycho/history/', 1, true))
    local file = io.open(path, 'ab')
    file:write('\0\1\2binary\255\n\27[2Jescape\nhalf a li')
    file:close()
    p = prompt()
    assert.truthy(type_in(p, '\18needle\r', 2):find('\nneedle42\r', 1, true))
    assert.truthy(type_in(p, '\18{\r', 3))
    assert.truthy(type_in(p, '#x\r', 4):find('\n2\r', 1, true))
    p:send '\18no such thing'
    p:expect 'nothing found; search: no such thing'
    type_in(p, '\3', 4)
    p:send '\18escape'
    p:expect 'nothing found; search: escape' -- a line with control characters, which nobody typed
    type_in(p, '\3', 4)
    finish(p)
    os.remove(path)
    os.execute('mkdir ' .. path:gsub('%%', '\\%%')) -- a history that cannot be read
    p = prompt()
    assert.truthy(type_in(p, '1+1\r', 2):find('\n2\r', 1, true))
    finish(p)
    os.execute('rmdir ' .. path:gsub('%%', '\\%%'))
  end)
  it('shows candidates, files and signatures below the line', function()
    local p = prompt()
    p:send 'tycho.ones{2}:su\t'
    assert.truthy(p:expect('sum', 2):find('sub', 1, true))
    type_in(p, '\3', 1)
    p:send 'io.open("folder_\t'
    p:expect('folder_of_data/', 2)
    type_in(p, '\3', 1)
    p:send 'tycho.conv2d('
    p:expect('conv2d(x, w, stride, padding)', 2)
    type_in(p, '\3', 1)
    p:send ':he\t'
    p:expect(':help', 2)
    finish(p)
  end)
  it('colours what is typed, unless NO_COLOR says no', function()
    local p = prompt { env = '' }
    p:send 'return "text"'
    p:expect('\27[35mreturn', 2)
    p:expect('\27[32m"text"', 2)
    finish(p)
    p = prompt()
    p:send 'return "text"'
    local plain = p:expect('return "text"', 2)
    assert.falsy(plain:find('\27%[%d*m'))
    finish(p)
  end)
  it('never draws beyond 20 columns', function()
    local p = prompt { columns = 20, rows = 6 }
    local out = type_in(p, 'local a_long_name = tycho.nn.Linear(2, 3) print(a_long_name ~= nil) return 6 * 7\r', 2)
    assert.truthy(out:find('\n42\r', 1, true), out)
    p:send 'tycho.ones{2}:s\t'
    p:expect('more', 2)
    type_in(p, '\3', 2)
    p:send 'tycho.conv2d('
    p:expect('conv2d(x, w, stride', 2)
    type_in(p, '\3', 2)
    type_in(p, '{ alpha = 1, beta = 2, gamma = 3 }\r', 3)
    local drawn = p.all:match('^.-\n(.*)$') -- without the greeting
    for line in drawn:gsub('\27%[[%d;?]*%a', function(code) return code:match('[JK]$') and '\n' or '' end):gmatch('[^\r\n]+') do
      assert(#line <= 20, line)
    end
    finish(p)
  end)
  it('reads plain lines in a dumb terminal', function()
    local p = pty.start(('cd %s && exec env HOME=%s TERM=dumb %s/tycho'):format(home, home, root))
    p:expect '1> '
    p:send 'for i = 1, 2 do\n'
    p:expect '.. '
    p:send 'print(i + 40)\nend\n'
    p:expect '42'
    p:expect '2> '
    p:send '\4'
    local status, all = p:finish()
    assert.equal(0, status)
    assert.falsy(all:find('\27', 1, true))
  end)
end)

describe('Ctrl-C', function()
  -- Stops texts without an end, the first of them line n, and expects the prompt within half a second: once in some tries, for others may hold the
  -- cores. Returns the number of the next line.
  local function stop(p, texts, n)
    for _, text in ipairs(texts) do
      local quickest, tries = math.huge, 0
      while quickest >= 0.5 and tries < 4 do
        p:send(text .. '\r')
        p:expect '\27[?2004l'
        os.execute 'sleep 0.2'
        local start = lib.cpu.ty_now()
        n, tries = n + 1, tries + 1
        local out = type_in(p, '\3', n)
        assert(out:find('interrupted', 1, true), text .. ': ' .. out)
        quickest = math.min(quickest, lib.cpu.ty_now() - start)
      end
      assert(quickest < 0.5, text)
    end
    return n
  end
  it('stops loops, compiled ones and ops within half a second, and keeps the state', function()
    local p = prompt()
    type_in(p, 'k = 41; function loop() while true do end end\r', 2)
    type_in(p, 'function deep() local t = {} while true do\nfor i = 1, 100 do t[i] = i end end end\r', 3)
    local n = stop(p, { 'while true do end', 'loop()', 'deep()', 'while true do tycho.ones{10} end',
      'x = tycho.ones{3000, 3000}; while true do y = x:matmul(x) end',
      'c = tycho.ones{32, 64, 56, 56}; w = tycho.ones{64, 64, 3, 3}; while true do y = c:conv2d(w, 1, 1) end',
      'tycho.scope(function() while true do tycho.ones{3}:exp() end end)' }, 3)
    assert.truthy(type_in(p, 'k + 1\r', n + 1):find('\n42\r', 1, true))
    -- and loops are compiled again
    assert.truthy(type_in(p, 'jit.status()\r', n + 2):find('true', 1, true))
    finish(p)
  end)
  it('in a script leaves its frames, not those of an error before', function()
    files.write(home .. '/endless.lua', 'local function spin(deepest) while true do end end\nspin(5)')
    local p = prompt()
    type_in(p, 'nil .. 1\r', 2)
    p:send ':run endless.lua\r'
    p:expect '\27[?2004l'
    os.execute 'sleep 0.2'
    type_in(p, '\3', 2)
    assert.truthy(type_in(p, ':up\r', 2):find('deepest = 5', 1, true))
    finish(p)
  end)
  it('between two lines ends nothing', function()
    local p = prompt()
    for n = 2, 8 do
      p:send '1\r'
      require('ffi').C.kill(p.process, 2)
      p:expect(('\27[?2004h\r\27[J%d> '):format(n))
    end
    assert.truthy(type_in(p, 'jit.status()\r', 9):find('true', 1, true))
    finish(p)
  end)
  it('ends a program that counts interrupts at the second one, though it has read the first', function()
    local p = pty.start(('cd %s && exec ./tycho -e %q'):format(root, [[local lib = tycho.lib lib.on_interrupt 'flag' print 'ready'
      while not lib.interrupted() do end print 'read' while true do end]]))
    p:expect 'ready'
    p:send '\3'
    p:expect 'read'
    p:send '\3'
    assert.equal(130, (p:finish()))
  end)
end)
