-- The bundle: nothing that it runs comes from outside its folder but glibc.
local lfs = require 'lfs'
local files = require 'spec.files'
local shell = require 'spec.shell'

local root = lfs.currentdir()
local folder = files.folder()

local glibc = { ['libc.so.6'] = true, ['libm.so.6'] = true, ['libdl.so.2'] = true, ['libpthread.so.0'] = true, ['librt.so.1'] = true }

local report = [[
local tycho = require 'tycho'
assert(tycho.ones({ 3 }, 'f64'):sum():item() == 3 and tycho.ones({ 2, 2 }):matmul(tycho.ones { 2, 2 }):sum():item() == 8)
assert(require 'tycho.io.image'.decoder() ~= 'stb_image')
for _, name in ipairs { 'lyaml', 'lfs', 'dkjson', 'busted.core', 'tycho.io.zip', 'tycho.repl', 'jit.p', 'experiments.contextssl.training' } do
  require(name)
end
tycho.device.problem 'cuda-host'
for _, list in ipairs { package.path, package.cpath } do
  for entry in list:gmatch '[^;]+' do print('search ' .. entry) end
end
for line in io.lines '/proc/self/maps' do print(line) end
]]

describe('the bundle', function()
  setup(function()
    local out, status = shell(('make -s -C %s bundle-tree && cp -r %s/build/bundle/tycho/. %s'):format(root, root, folder))
    assert(status == 0, out)
  end)
  teardown(function() os.execute(('rm -rf %s/build/bundle'):format(root)) end)

  it('runs from any folder with what it holds and glibc', function()
    files.write(folder .. '/report.lua', report)
    local out, status = shell(('env -i %s/tycho %s/report.lua'):format(folder, folder), '/')
    assert(status == 0, out)
    local own = 0
    for line in out:gmatch '[^\n]+' do
      local path = line:match '%s(/%S+%.so[.%d]*)$'
      if path and path:sub(1, #folder) == folder then
        own = own + 1
      elseif path then
        assert(path:match '/ld%-linux[^/]*$' or glibc[path:match '[^/]*$'], path)
      end
      local entry = line:match '^search (.*)$'
      assert(not entry or entry == './?.lua' or entry:sub(1, #folder) == folder, entry)
    end
    assert(own > 10, out)
  end)

  it('runs a spec', function()
    local out, status = shell('env -i ./tycho specs.lua -o plainTerminal spec/tiny_spec.lua', folder)
    assert(status == 0, out)
    assert(out:find('4 successes / 0 failures', 1, true), out)
  end)
end)
