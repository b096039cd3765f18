-- The README's recipes for adding things, run as they stand there: a copy of the project, one file or row more, nothing else.
local lib = require 'tycho.lib'
local files = require 'spec.files'
local shell = require 'spec.shell'

local copy = files.folder()
local read, write = files.read, files.write

-- The first code block of the README after a text.
local readme = read(lib.root .. '/README.md')
local function block(after)
  local _, at = readme:find(after, 1, true)
  return assert(at and readme:match('```%w*\n(.-)```', at), 'no code block after ' .. after)
end

local function run(code)
  write(copy .. '/check.lua', ('package.path = %q .. package.path\nlocal tycho = require "tycho"\n%s\nprint "fine"'):format(
    ('%s/lua/?.lua;%s/lua/?/init.lua;%s/?.lua;'):format(copy, copy, copy), code))
  assert.equal('fine\n', (shell('env -u TYCHO_BUILD -u LD_PRELOAD TYCHO_CPU=plain luajit check.lua', copy)))
end

local function make()
  local command = 'env -u LD_PRELOAD make -s -C %s SAN= CFLAGS=-O0 LEVELS=plain build/libtycho-plain.so build/libtycho64.so >/dev/null'
  assert.equal(0, os.execute(command:format(copy)))
end

describe('recipe', function()
  setup(function()
    os.execute(('cd %s && cp -rp csrc lua experiments Makefile %s && mkdir %s/build && cp -rp build/obj build/obj64 build/*.so %s/build 2>/dev/null')
      :format(lib.root, copy, copy, copy))
    make()
  end)

  it('for a loss is one file', function()
    write(copy .. '/lua/tycho/loss/cosine.lua', (block '`lua/tycho/loss/cosine.lua`:'))
    run [[
      local p = tycho.tensor({ { 1, 0 }, { 1, 1 } }, 'f64'):requires_grad_()
      local loss = tycho.loss.cosine(p, tycho.tensor({ { 0, 1 }, { 2, 2 } }, 'f64'))
      assert(math.abs(loss:item() - 0.5) < 1e-12)
      loss:backward()
      assert(p.grad)
    ]]
  end)

  it('for a layer is one file', function()
    write(copy .. '/lua/tycho/nn/Residual.lua', (block '`lua/tycho/nn/Residual.lua`:'))
    run [[
      local layer = tycho.nn.Residual(tycho.nn.Linear(3, 3))
      assert(#layer:parameters() == 2 and layer:named_parameters()[1][1] == 'inner.weight')
      assert(layer(tycho.ones { 2, 3 }):size(1) == 3)
    ]]
  end)

  it('for an elementwise op is one row', function()
    write(copy .. '/csrc/map.def', read(copy .. '/csrc/map.def') .. block 'An elementwise op')
    make()
    run [[
      local x = tycho.tensor({ -1, 0.5, 2 }, 'f64')
      assert(tycho.gradcheck(function(t) return t:softplus() end, { x }) < 1e-6)
      assert(math.abs(tycho.softplus(x)[2]:item() - math.log(1 + math.exp(2))) < 1e-12)
    ]]
  end)

  it('for a structured op is a header line, a body and a record', function()
    local line, body, record = readme:match('%*%*A structured op%*%*.-```c\n(.-)```.-```c\n(.-)```.-```lua\n(.-)```')
    write(copy .. '/csrc/tycho.h', (read(copy .. '/csrc/tycho.h'):gsub('\n#endif%s*$', function() return '\n' .. line .. '\n#endif\n' end)))
    write(copy .. '/csrc/cumsum.c', body)
    write(copy .. '/lua/tycho/ops/cumsum.lua', record)
    make()
    run [[
      local sample = require('tycho.op').record('cumsum').sample
      assert(tycho.gradcheck(tycho.cumsum, { sample(tycho.generator(1)) }) < 1e-6)
      assert(tycho.tensor({ { 1, 2, 3 } }):cumsum()[0][2]:item() == 6)
    ]]
  end)

  it('for a changed method is a script that replaces a policy', function()
    local code = block '**Changing the method.**'
    assert(code:find('policies.environment', 1, true) and code:find("dofile 'experiments/main.lua'", 1, true))
    run((code:gsub("dofile[^\n]*", '') .. [[
      local g, seen = tycho.generator(1), {}
      for _ = 1, 200 do seen[policies.environment({}, g)] = true end
      assert(seen.rot and seen.color and not seen.rotcolor)
      assert(math.abs(policies.terms.size { prediction = tycho.full({ 2, 2 }, 3) }:item() - 0.09) < 1e-6)
      assert(policies.terms.equivariance == nil)
    ]]))
  end)

  it('for a kernel computes and passes its gradient check', function()
    run(block 'The short form writes the loops itself:' .. [[
      assert(softsign(tycho.tensor { -3, 1 }, 1)[0]:item() == -0.75)
      assert(tycho.gradcheck(function(x) return softsign(x, 0.5) end, { tycho.generator(1):normal_tensor({ 3, 4 }, 'f64') }) < 1e-6)
    ]])
  end)

  it('for an op in Lua passes its gradient check', function()
    run(block '**An op written in Lua**' .. [[
      assert(softsign(tycho.tensor { -3, 1 })[0]:item() == -0.75)
    ]])
  end)
end)
