-- The prompt, over a pipe and through a pseudo-terminal.
local lib = require 'tycho.lib'
local complete = require 'tycho.repl.complete'
local printer = require 'tycho.repl.print'
local tycho = require 'tycho'

local function temporary(text)
  local path = os.tmpname()
  local file = assert(io.open(path, 'w'))
  file:write(text)
  file:close()
  return path
end
local function output_of(command)
  local pipe = io.popen(command)
  local out = pipe:read('*a')
  pipe:close()
  return out
end
local function piped(lines)
  local input = temporary(lines)
  local out = output_of(('cd %s && ./tycho < %s 2>&1; echo "status $?"'):format(lib.root, input))
  os.remove(input)
  return out
end
-- Types into a terminal of its own; keys arrive one after the other.
local function typed(keys)
  local input, home = temporary(keys), os.tmpname()
  os.remove(home)
  local out = output_of(('mkdir %s; cd %s && (sleep 0.3; cat %s; sleep 0.5) | HOME=%s TERM=xterm script -qec ./tycho /dev/null')
    :format(home, lib.root, input, home))
  local history = io.open(home .. '/.tycho_history')
  local kept = history and history:read('*a')
  if history then history:close() end
  os.remove(input)
  os.execute('rm -rf ' .. home)
  return out, kept
end

describe('the prompt on a pipe', function()
  it('prints expressions, keeps locals and _, hides after a semicolon', function()
    assert.equal('5\n10\n11\nstatus 0\n', piped 'local x = 5\nx\n_ * 2\n_ + 1\nx + 1;\n')
  end)
  it('keeps every local outside blocks, and none inside', function()
    assert.equal('2\nnil\nlocal x\nnil\n', (piped 'local a = 1; local b = a + 1\nb\nlocal q\nq\nlocal s = "local x" do local z = 1 end\ns\nz\n'
      :gsub('status.*', '')))
  end)
  it('goes on over several lines', function()
    assert.equal('1\n2\n3\n12\nstatus 0\n', piped 'for i = 1, 3 do\nprint(i)\nend\nlocal function f(a)\nreturn a * 2\nend\nf(\n6)\n')
  end)
  it('survives errors and says so in its status', function()
    local out = piped 'tycho.ones{2} + tycho.ones{3}\n1 1\n7\n'
    assert.truthy(out:find('add: shapes (2) and (3) do not broadcast', 1, true))
    assert.truthy(out:find('\n7\nstatus 1\n', 1, true))
  end)
  it('says when the input ends too early', function()
    assert.truthy(piped('for i = 1, 2 do\n'):find('the input ended inside a statement', 1, true))
  end)
end)

describe('the prompt on a terminal', function()
  if not output_of('script -qec "echo yes" /dev/null </dev/null 2>/dev/null'):find('yes', 1, true) then
    return pending('needs a pseudo-terminal, and this machine gives none (script failed)')
  end
  it('edits, completes, recalls, and lives on after Ctrl-C', function()
    local out, history = typed('12+3\r' .. '\27[A\127\0524\r' .. 'tycho.zero\t{2}:sum():item()\r' .. 'nonsense\3' .. '6*7\r' .. '\4')
    assert.truthy(out:find('\n15\r', 1, true), out)
    assert.truthy(out:find('\n56\r', 1, true), out) -- 12+3 recalled, 3 deleted, 44 typed
    assert.truthy(out:find('\n0\r', 1, true) or out:find('tycho.zeros', 1, true), out)
    assert.truthy(out:find('\n42\r', 1, true), out)
    assert.truthy(history:find('12+44\n', 1, true), history)
    assert.falsy(history:find('nonsense', 1, true))
  end)
  it('stops running loops, with ops and without, on Ctrl-C and keeps the state', function()
    local out = output_of(('cd %s && (sleep 0.3; printf "k = 41\\rwhile true do tycho.ones{10} end\\r"; sleep 1; printf "\\003"; sleep 0.5; '
      .. 'printf "while true do k = k end\\r"; sleep 0.5; printf "\\003"; sleep 0.5; '
      .. 'printf "k + 1\\r\\004"; sleep 0.3) | HOME=/nonexistent TERM=xterm timeout 20 script -qec ./tycho /dev/null')
      :format(lib.root))
    local _, times = out:gsub('interrupted', '')
    assert.equal(2, times, out)
    assert.truthy(out:find('\n42\r', 1, true), out)
  end)
end)

describe('completion', function()
  local environment = setmetatable({ tycho = tycho, image = tycho.ones { 2 }, settings = { epochs = 1, env_ratio = 2 } }, { __index = _G })
  local function words(text) return table.concat((complete.candidates(environment, text)), ' ') end
  it('knows globals, fields and methods', function()
    assert.equal('settings', words 'print(sett')
    assert.equal('env_ratio epochs', words 'settings.e')
    assert.truthy(words('image:conv'):find('conv2d', 1, true))
    assert.truthy(words('image:re'):find('relu', 1, true))
    assert.equal('shape', words 'image.sha')
    assert.equal('Linear', words 'tycho.nn.Lin')
    assert.equal('', words 'nothing.here')
    environment.buffer = require('ffi').new('int[3]')
    assert.equal('', words 'buffer.x')
  end)
end)

describe('printing', function()
  it('clips long tensors and counts NaN', function()
    local t = tycho.arange(20)
    t:ptr()[0] = 0 / 0
    local text = tostring(t)
    assert.truthy(text:find('tensor 20 f32  min 1  max 19', 1, true))
    assert.truthy(text:find('1 NaN', 1, true))
    assert.truthy(text:find('...  17  18  19]', 1, true))
  end)
  it('shows matrices row by row', function()
    assert.truthy(tostring(tycho.tensor { { 1, 2 }, { 3, 40 } }):find('[[ 1  2]\n [ 3 40]]', 1, true))
    assert.equal('tensor 0x3 f32  empty', tostring(tycho.empty { 0, 3 }))
  end)
  it('limits tables by depth, length and cycles', function()
    local t = { 1, 'a', { b = {} } }
    t.self = t
    assert.equal('{1, "a", {b = {}}, self = <cycle>}', printer.value(t))
    local many = {}
    for i = 1, 100 do many[i] = i end
    assert.truthy(printer.value(many):find('... 76 more', 1, true))
  end)
end)
