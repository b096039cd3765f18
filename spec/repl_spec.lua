-- The prompt on a pipe, completion, and how values print. For the prompt on a terminal see editor_spec.lua.
local complete = require 'tycho.repl.complete'
local printer = require 'tycho.repl.print'
local tycho = require 'tycho'
local files = require 'spec.files'
local outcome = require 'spec.outcome'

local folder = files.folder()
local function piped(lines)
  return outcome('./tycho < ' .. files.write(folder .. '/lines', lines))
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
  it('prints the expression that ends a text of statements', function()
    assert.equal('7\n{4, 5}\nstatus 0\n', piped 'y = 7; y\nlocal t = { 4,\n5 }; t\n')
  end)
  it('numbers results in Out, and keeps nothing of a line that failed', function()
    assert.equal('7\n8\n7\n15\nnil\nstatus 1\n', (piped '7\n8\nOut[1]\nOut[1] + Out[2]\nerror("no", 0)\nOut[5]\n':gsub('no\n.-(nil)', '%1')))
  end)
  it('makes a local without a value nil, also where the name had one', function()
    assert.equal('nil\n3\nstatus 0\n', piped 'q = 5\nlocal q, r s = 3\nq\ns\n')
  end)
  it('keeps locals of many lines, strings and comments as they are', function()
    assert.equal('local y\n3\nnil\n', (piped 'do\nlocal q = 1\nend local s = [[local y]] -- local z\ns\nlocal a, b = 1, 2 local c = a + b\nc\nq'
      :gsub('status.*', '')))
  end)
  it('shows the source line and the locals, with shapes, of each frame of an error', function()
    local out = piped('function scale(x, by) local half = by / 2; local y = x + half; return y end\n'
      .. 'function both(a, b) local r = scale(a, b); return r end\n'
      .. 'both(tycho.ones{2}, tycho.ones{3})\n')
    for _, text in ipairs { 'In[1]:1: add: shapes (2) and (3) do not broadcast', '> function scale(x, by)', 'x = tensor (2) f32, by = tensor (3) f32',
      'half = tensor (3) f32', 'In[2]:1', 'a = tensor (2) f32, b = tensor (3) f32' } do
      assert(out:find(text, 1, true), out)
    end
    assert.falsy(out:find('lua/tycho', 1, true), out)
  end)
  it('shows where an error inside a scope came from', function()
    local out = piped 'function inside() local k = 5; return tycho.scope(function() local kept = tycho.ones{4}; error "broken" end) end\ninside()\n'
    assert(out:find('kept = tensor (4) f32', 1, true), out)
  end)
  it('says when the input ends too early', function()
    assert.truthy(piped('for i = 1, 2 do\n'):find('the input ended inside a statement', 1, true))
  end)
end)

describe('completion', function()
  local environment = setmetatable({ tycho = tycho, image = tycho.ones { 2 }, settings = { epochs = 1, env_ratio = 2 }, layer = tycho.nn.Linear(2, 3),
    g = tycho.generator(1), list = { { inner = 1 } } }, { __index = _G })
  local function words(text) return table.concat((complete.candidates(environment, text)), ' ') end
  local function offers(text, word) assert((' ' .. words(text) .. ' '):find(' ' .. word .. ' ', 1, true), words(text)) end
  it('knows globals, fields and methods', function()
    assert.equal('settings', words 'print(sett')
    assert.equal('env_ratio epochs', words 'settings.e')
    offers('image:conv', 'conv2d')
    offers('image:re', 'relu')
    assert.equal('shape', words 'image.sha')
    assert.equal('Linear', words 'tycho.nn.Lin')
    assert.equal('inner', words 'list[1].')
    assert.equal('', words 'nothing.here')
    environment.buffer = require('ffi').new('int[3]')
    assert.equal('', words 'buffer.x')
  end)
  it('offers only what can be called after a colon', function()
    assert.equal('', words 'image:sha')
    offers('layer:', 'forward')
    offers('layer:', 'state_dict')
    offers('layer.', 'weight')
    assert.equal('', words 'layer:wei')
    offers('g:', 'permutation')
  end)
  it('guesses that calls give tensors, and knows what classes make, without calling', function()
    environment.boom = function() error 'called' end
    offers('boom(1):matm', 'matmul')
    offers('image:relu():su', 'sum')
    offers('tycho.nn.Linear(2, 3):for', 'forward')
  end)
  it('knows file names, settings and modules in strings', function()
    assert.equal('experiments/', words 'io.open("experim')
    offers('dofile "experiments/ma', 'main.lua')
    offers("f{'mask_p", 'mask_prob=')
    offers('require "tycho.io.sa', 'safetensors')
    offers("require('experiments.contextssl.env", 'environments')
    offers(':run experiments/main.lua learn', 'learning_rate=')
    assert.equal('', words '"a closed string" ..')
  end)
end)

describe('a signature hint', function()
  local hint = require 'tycho.repl.hint'
  local environment = setmetatable({ tycho = tycho, image = tycho.ones { 2 }, mine = function(first, second) return first, second end },
    { __index = _G })
  it('stands below the arguments of the innermost call', function()
    assert.equal('mine(first, second)', hint(environment, 'x = mine(1, '))
    assert(hint(environment, 'image:conv2d('):find('conv2d(x, w, stride, padding)', 1, true))
    assert(hint(environment, 'mine(tycho.nn.Linear('):find('Linear(inputs, outputs)', 1, true))
    assert(hint(environment, 'tycho.cat({'):find('cat', 1, true))
    assert.equal('mine(first, second)', hint(environment, 'mine(image:relu(), "("'))
    assert.is_nil(hint(environment, 'mine(1)'))
    assert.is_nil(hint(environment, 'if (x'))
    assert.is_nil(hint(environment, 'unknown('))
  end)
end)

describe('printing', function()
  it('clips long tensors and counts NaN', function()
    local t = tycho.arange(20)
    t:ptr()[0] = 0 / 0
    local text = tostring(t)
    assert.truthy(text:find('tensor 20 f32 cpu  min 1  max 19', 1, true))
    assert.truthy(text:find('1 NaN', 1, true))
    assert.truthy(text:find('...  17  18  19]', 1, true))
  end)
  it('shows matrices row by row', function()
    assert.truthy(tostring(tycho.tensor { { 1, 2 }, { 3, 40 } }):find('[[ 1  2]\n [ 3 40]]', 1, true))
    assert.equal('tensor 0x3 f32 cpu  empty', tostring(tycho.empty { 0, 3 }))
  end)
  it('limits tables by depth, length and cycles', function()
    local t = { 1, 'a', { b = {} } }
    t.self = t
    assert.equal('{1, "a", {b = {}}, self = <cycle>}', printer.value(t))
    local many = {}
    for i = 1, 100 do many[i] = i end
    assert.truthy(printer.value(many):find('... 76 more', 1, true))
    assert.equal('{\n  alpha = 1,\n  beta = 2\n}', printer.value({ alpha = 1, beta = 2 }, { width = 20 }))
    assert.truthy(printer.value { ('x'):rep(1000) }:find('(1000 bytes)', 1, true))
  end)
  it('lists the tensors of a module', function()
    assert.equal('module of 9 parameters in 2 tensors\n  weight  (3, 2)\n  bias  (3)', printer.value(tycho.nn.Linear(2, 3)))
    assert.equal('{<module of 9 parameters>}', printer.value { tycho.nn.Linear(2, 3) })
  end)
end)
