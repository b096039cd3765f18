-- Commands of the prompt: help from the comments, reloading, running, measuring, saving.
local files = require 'spec.files'
local pty = require 'spec.pty'
local says = require 'spec.says'
local shell = require 'spec.shell'

local root = require 'lfs'.currentdir()
local folder = files.folder()

local write = files.inside(folder)
-- Lines typed on a pipe, in the spec's folder; returns what came and the exit status.
local function piped(lines)
  write('input', lines)
  return shell(('HOME=%s %s/tycho < input'):format(folder, root), folder)
end

describe('commands of the prompt', function()
  it('are listed, found by their file, and near ones are named', function()
    local out, status = piped ':help\n:benhc 1\n'
    says(out, ':bench', 'times an expression', ':reload', 'did you mean :bench?')
    assert.equal(1, status)
  end)
  it('explain ops, layers, losses, optimisers, functions, keys and commands', function()
    for name, text in pairs {
      conv2d = 'conv2d(x, w, stride, padding)\n  cross-correlation. x (N,I,H,W)',
      policies = 'policies\n',
      ['tycho.relu'] = 'relu(x)\n  Elementwise: x < 0 ? 0 : x\n',
      ['tycho.nn.Linear'] = 'Linear(inputs, outputs)\n  y = x weight^T + bias',
      ['tycho.loss.nt_xent'] = 'nt_xent(p, temperature, options)\n  normalised temperature-scaled',
      Adam = 'Adam (Kingma & Ba 2015)',
      ['tycho.train.schedule.warmup_cosine'] = 'M.warmup_cosine(base, it, warmup, total)\n  Linear from 0 to base',
      mask_prob = 'mask_prob: 0.15\n  probability that random_mask hides a pair\n  (experiments/config.yml:',
      [':mem'] = 'the largest live tensors',
      no_grad = 'Runs fn(...) without recording',
    } do says(piped(('?%s\n'):format(name)), text) end
    says(piped 'x = tycho.ones{2}\n?x.matmul\n?convd2\n', 'matmul(a, b)', 'did you mean ?conv2d?')
  end)
  it('show sources and search comments', function()
    local out = piped '??softmax\n??gelu\n??tycho.train.schedule.warmup_cosine\n?? temperature-scaled\n?? nothing-speaks-of-this\n'
    says(out, '-- lua/tycho/ops/softmax.lua', 'ty_softmax_back', 'MAP1(gelu,', 'return base * 0.5 * (1 + math.cos',
      'tycho.loss.nt_xent', "no comment holds 'nothing-speaks-of-this'")
  end)
  it('reload edits into everything that holds the old functions', function()
    write('my_loss.lua', [[
local M = {}
local calls = {}
local function scale() return 2 end
function M.loss(x) calls[#calls + 1] = x return x * scale(), #calls end
M.Class = { __index = { method = function() return 'old' end } }
M.policies = { mask = function() return 'own' end }
return M
]])
    local out, status = piped([[m = require 'my_loss'; held = { m.loss }; local captured = m.loss
function later(x) return captured(x) end
object = setmetatable({}, m.Class)
m.policies.mask = function() return 'mine' end
later(10)
!sed -i "s/return 2/return 3/; s/old/new/; s/own/OWN/" my_loss.lua
:reload
later(10)
held[1](10)
object:method(), m.policies.mask()
:reload
]])
    says(out, '20\n1\n', 'reloaded my_loss: 3 functions\n30\n2\n30\n3\nnew\nmine\nno module was edited')
    assert.equal(0, status)
  end)
  it('change nothing when the new text does not compile or raises', function()
    write('my_loss.lua', 'return { f = function() return 1 end }')
    local out, status = piped([[m = require 'my_loss'
!echo "return { f = function( return 2 end }" > my_loss.lua
:reload
m.f()
!echo "error('at load')" > my_loss.lua
:reload my_loss
m.f()
:reload tycho.lib
]])
    says(out, 'my_loss was not reloaded: ./my_loss.lua:1: ', '\n1\n', 'my_loss was not reloaded, it raised: ', 'at load', 'cannot be reloaded')
    assert.equal(1, status)
  end)
  it('watch sources, also while the prompt waits', function()
    write('my_loss.lua', 'return { f = function() return "first" end }')
    local p = pty.start(('cd %s && exec env NO_COLOR=1 HOME=%s TERM=xterm %s/tycho'):format(folder, folder, root))
    p:expect '1> '
    p:send 'f = require("my_loss").f\r'
    p:expect '2> '
    p:send ':watch\r'
    p:expect '2> '
    write('my_loss.lua', 'return { f = function() return "second" end }')
    p:expect 'reloaded my_loss: 1 functions'
    p:send 'f()\r'
    p:expect '\nsecond\r'
    p:expect '\27[?2004h' -- keys that come before the editor reads them are the terminal's
    p:send '\4'
    assert.equal(0, (p:finish()))
  end)
  it('run scripts in the session, and outlive those that end the process', function()
    write('script.lua', 'made = { arg[1], ... }\nprivate = 1\nif arg[1] == "fail" then error "deep" end\nos.exit(tonumber(arg[1]) or 0)')
    local out, status = piped(':run script.lua 0 "two words" key=value\nmade\n:run script.lua 3\n'
      .. ':run script.lua fail\n:run nothing.lua\nmade[1]\n')
    says(out, '{"0", "0", "two words", "key=value"}', 'script.lua ended with status 3', 'script.lua:3: deep', 'there is no script nothing.lua',
      '\nfail\n')
    assert.equal(1, status)
  end)
  it('run scripts with modules of their own, and with those of the session as they are', function()
    write('parts.lua', 'return { from = "the file" }')
    write('one.lua', "require('parts').from = 'another script'")
    write('two.lua', "print('from ' .. require('parts').from)")
    says(piped ':run two.lua\n:run one.lua\n:run two.lua\nparts = require "parts"; parts.from = "the prompt"\n:run two.lua\n',
      'from the file\nfrom the file\nfrom the prompt')
  end)
  it('measure time, lines and memory', function()
    local out, status = piped([[x = tycho.ones{512, 512}
:bench x:exp()
function slow() for i = 1, 3e8 do k = i end end
:prof slow()
layer = { weight = tycho.zeros{300, 1000} }
:mem
:who
]])
    assert(out:match('%d [mu]s %([%d.]+ [mu]s to [%d.]+ [mu]s, %d+ rounds of %d+%); 1%.0%d MB of tensors'), out)
    assert(out:match('%d%%  In%[2%]:1\n'), out)
    assert(out:match('1%.200 MB  layer%.weight%s+In%[3%]:1\n%s+1%.049 MB  x%s+In%[1%]:1\n'), out)
    says(out, 'x      tensor (512, 512) f32')
    assert.equal(0, status)
  end)
  it('stop at the first number that is not finite, until asked no more', function()
    local out = piped ':nan\nx = tycho.tensor{0}:log()\n:nan\ntycho.tensor{0}:log():item()\n'
    says(out, 'the first number that is not finite raises', 'break_on_nan: log made 1 infinite of 1 numbers', 'pass again\n-inf\n')
  end)
  it('have plots, in one sentence where there is nothing to draw', function()
    local out = piped 'plot{1,2};\nplot.lines{series = {{x = {1}, y = {1}}}};\nplot{0/0}\nhist({1,2},0)\n'
    assert.equal("plot: 'series 1' has no point to draw (nothing but NaN)\nplot: hist: bins must be a whole number >= 1, got 0\n", out)
  end)
  it('go between the frames of an error, whose variables then are those of the lines', function()
    local out, status = piped [[
:up
function scale(x, by) local half = by / 2; local y = x + half; return y end
function both(a, b) local r = scale(a, b); return r end
both(tycho.ones{2}, tycho.ones{3})
:up
half:numel() * 100
half = 8
fresh = half + 1
:who
:up
a:numel() + fresh
no.such
b:numel() * 1000
:up
:down
half * 10
:down
:down
half, fresh
local kept = tycho.scope(function() local inside = 77; error 'broken' end)
:up
inside
]]
    says(out, 'there is no error whose frames', 'frame 1 of 2\n  In[1]:1 in scale\n    > function scale(x, by)', '\n300\n',
      'by    tensor (3) f32', 'frame 2 of 2', '\n11\n', '\n3000\n', 'this is the outermost frame; :down goes inwards', '\n80\n', 'out of the frames',
      'this is the innermost place', '\nnil\n9\n', '\n77\n')
    assert.equal(1, status)
  end)
  it('keep the frames of an error until memory ends, and longer while somebody is in one', function()
    local before = 'tycho.set_memory_limit(tycho.memory().registered + 1e6)\n'
      .. "function hold() local x = tycho.zeros{200, 1000}; error 'full' end\nhold()\n"
    local line = 'tycho.zeros{200, 1001}:numel()\n'
    says(piped(before .. line .. ':up\n'), '\n200200\n', 'there is no error whose frames')
    says(piped(before .. ':up\n' .. line .. 'x:numel()\n'), 'out of memory on cpu: asked for 0.8 MB', '\n200000\n')
  end)
  it('save what ran as a script that prints the same', function()
    local out = piped 'local a = 20\nerror "no"\nfunction f()\nreturn a + 1\nend\nf() * 2\nf();\nb = 1; b + 5\n:save idea\n:save idea\n'
    says(out, '5 lines in idea.lua', 'idea.lua exists already')
    assert.equal('42\n6\n', (shell(root .. '/tycho idea.lua', folder)))
  end)
  it('let go on what waits, and nothing else', function()
    says(piped ':go\n40 + 2\n', ':go: no program waits for this prompt; Ctrl-D ends it', '\n42\n')
  end)
  it('pass lines to the shell', function()
    local out, status = piped '!echo from the shell\n!exit 3\n'
    says(out, 'from the shell\n', 'exit status 3')
    assert.equal(1, status)
  end)
end)
