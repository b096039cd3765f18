-- The command line: scripts, subcommands, code, errors and exit status.
local lfs = require 'lfs'
local lib = require 'tycho.lib'
local files = require 'spec.files'
local outcome = require 'spec.outcome'

local folder = files.folder()
local function tycho(arguments) return outcome('./tycho ' .. arguments) end
local function script(text) return files.write(folder .. '/script.lua', text) end

describe('./tycho', function()
  it('runs code and scripts with arguments', function()
    assert.equal('3\nstatus 0\n', tycho "-e 'print(tycho.ones{3}:sum():item())'")
    local path = script 'print(..., arg[2], arg[0] ~= nil)'
    assert.equal('a=1\tb=2\ttrue\nstatus 0\n', tycho(path .. ' a=1 b=2'):gsub('a=1\tb=2\tb=2', 'a=1\tb=2'))
  end)
  it('prints its version and help', function()
    assert.truthy(tycho('--version'):match('^Tycho %d+%.%d+%.%d+, LuaJIT'))
    local help = tycho '--help'
    for _, text in ipairs { 'usage:', 'doctor', 'experiments/main.lua' } do assert.truthy(help:find(text, 1, true)) end
  end)
  it('explains the machine', function()
    local out = tycho 'doctor'
    for _, text in ipairs { 'threads', 'libtycho-', 'OpenBLAS', 'pages', 'cuda', 'status 0' } do assert.truthy(out:find(text, 1, true), out) end
  end)
  it('names the nearest script or subcommand', function()
    assert.equal("tycho: no script 'experiments/mian.lua'; did you mean 'experiments/main.lua'?\nstatus 1\n", tycho 'experiments/mian.lua')
    assert.truthy(tycho('docter'):find("did you mean 'doctor'?", 1, true))
  end)
  it('takes no arguments that mean nothing', function()
    assert.equal("tycho: doctor takes no arguments, got 'x'\nstatus 1\n", tycho 'doctor x')
    assert.truthy(tycho('doctor --help'):find '^usage: ./tycho doctor')
    assert.equal('tycho: docs takes one argument, a folder; ./tycho docs --help\nstatus 1\n', tycho 'docs --foo')
    assert.equal('tycho: -m needs a script, as in ./tycho -m experiments/main.lua seed=1,2\nstatus 1\n', tycho '-m')
  end)
  it('says in one line what is wrong with settings', function()
    for arguments, text in pairs {
      ['epcohs=3'] = "unknown key 'epcohs'; did you mean 'epochs'",
      ['out='] = 'out must be a folder, got',
      ['epochs=ten'] = 'epochs must be a number, got ten',
      ['env_ratio=0.5'] = 'env_ratio',
      [''] = 'data_dir is not set',
      ['data_dir=/nonexistent'] = 'data_dir=/nonexistent',
      ['device=gpu'] = 'device must be auto, cpu or cuda, got gpu',
      ['threads=0.5'] = 'threads must be a whole number from 0 to',
      ['resume=/nonexistent'] = 'resume=/nonexistent',
    } do
      local out = tycho('experiments/main.lua ' .. arguments)
      assert.truthy(out:find(text, 1, true), out)
      assert.truthy(out:match('^tycho: [^\n]*\nstatus 1\n$'), out)
    end
  end)
  it('runs loops over pairs to their end', function()
    -- LuaJIT issue 827: without lua/tycho/luajit.lua the compiler ends the outer loop early.
    local path = script [[
      local list = { 1, 2, 3, 4, 5 }
      local all = { a = list, b = list, c = list, d = list, e = list }
      local function interpreted(...) for _ = 1, 100 do end end
      for _ = 1, 100000 do
        interpreted()
        local count = 0
        for _, inner in pairs(all) do
          for _ in pairs(inner) do end
          count = count + 1
        end
        assert(count == 5)
      end]]
    assert.equal('status 0\n', tycho(path))
    local message = "(command line):1: bad argument #1 to 'pairs' (table expected, got nil)\n"
    assert.equal(message, tycho("-e 'pairs()'"):sub(1, #message))
  end)
  it('gives the way to a fault in a program', function()
    local path = script 'local function f() return nil + 1 end\nf()'
    local out = tycho(path)
    assert.truthy(out:find('attempt to perform arithmetic', 1, true) and out:find('stack traceback', 1, true) and out:find('status 1', 1, true))
  end)
  it('gives the way to a fault outside of the framework', function()
    local out = tycho(script [[
local tycho = require 'tycho'
local function f() return tycho.scope(function() return tycho.ones { 2 } + tycho.ones { 3 } end) end
f()]])
    assert.truthy(out:find('script.lua:2: add: shapes (2) and (3) do not broadcast', 1, true), out)
    assert.truthy(out:find('in function <', 1, true) and out:find('script.lua:3: in main chunk\nstatus 1\n', 1, true), out)
    assert.falsy(out:find('lua/tycho/', 1, true) or out:find('[C]', 1, true), out)
  end)
  it('goes between the frames of a script that failed before the prompt', function()
    for _, call in ipairs { 'error "broken"', 'error("broken", 0)', "require('tycho').scope(function() error 'broken' end)" } do
      local out = outcome(("printf ':up\\n:up\\n:up\\nhalf * 10\\n' | ./tycho -i %s"):format(script('local half = 4\nlocal function f() ' .. call
        .. ' end\nf()')))
      assert.truthy(out:find('broken', 1, true) and out:find('\n40\n', 1, true), out)
    end
  end)
  it('fails where what it prints cannot be written', function()
    for _, arguments in ipairs { "-e 'print(1)'", '--help', script 'print(1) os.exit(0)' } do
      assert.equal('tycho: what was printed could not be written: No space left on device\nstatus 1\n', tycho(arguments .. ' > /dev/full'))
    end
    assert.equal('status 3\n', tycho "-e 'os.exit(3)' > /dev/full")
    assert.equal('status 0\n', tycho "-e 'print(1)' >&-")
  end)
  it('says when Lua has no memory left', function()
    local out = outcome [[bash -c "ulimit -v 3000000; ./tycho -e 'local t = {} while true do t[#t + 1] = (\"x\"):rep(1e6) .. #t end'"]]
    assert.equal('tycho: not enough memory\nstatus 1\n', out)
  end)
  it('works where its folder was removed', function()
    local here = lfs.currentdir()
    local out = outcome(('mkdir %s/gone && cd %s/gone && rmdir ../gone && %s/tycho %s/experiments/main.lua data_dir=x'):format(folder, folder,
      here, here))
    assert.equal('tycho: data_dir=x: there is no such file or folder (from the command line)\nstatus 1\n', out)
  end)
  it('starts in less than a tenth of a second', function()
    local start = lib.cpu.ty_now()
    for _ = 1, 5 do tycho "-e 'x = 1'" end
    assert((lib.cpu.ty_now() - start) / 5 < 0.1)
  end)
end)
