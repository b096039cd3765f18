-- Types for editors and the API reference: made of the comments, whole, and true to what the modules hold.
local lfs = require 'lfs'
local tycho = require 'tycho'
local json = require 'tycho.io.json'
local op = require 'tycho.op'
local files = require 'spec.files'

local folder = files.folder()
local read = files.read

describe('./tycho docs', function()
  local types, page
  setup(function()
    assert.equal(0, os.execute(('%s/tycho docs %s >/dev/null'):format(tycho.lib.root, folder)))
    types, page = read(folder .. '/types/tycho.lua'), read(folder .. '/reference.html')
  end)

  it('writes types that are Lua, and name nothing that is not there', function()
    assert(loadfile(folder .. '/types/tycho.lua'))
    local count = 0
    for name in types:gmatch('\nfunction (tycho%.[%w_.]+)%(') do
      local value = tycho
      for part in name:gmatch('%.([%w_]+)') do
        value = value[part]
        assert(value ~= nil, name .. ' is not there')
      end
      count = count + 1
    end
    assert(count > 200, count)
    local x = tycho.ones { 2 }
    for name in types:gmatch('\nfunction Tensor:([%w_]+)%(') do assert(x[name] ~= nil, 'tensors have no ' .. name) end
  end)

  it('has every op, with its tensors typed, as a function and as a method', function()
    for _, name in ipairs(op.names()) do
      assert(types:find('\nfunction tycho.' .. name .. '(', 1, true), name)
      assert(page:find('<h3 id="tycho.' .. name .. '">', 1, true), name)
    end
    assert(types:find('---@param x tycho.Tensor\n---@param w tycho.Tensor\n---@return tycho.Tensor\n'
      .. 'function tycho.conv2d(x, w, stride, padding) end', 1, true))
    assert(types:find('function Tensor:conv2d(w, stride, padding) end', 1, true))
    for _, name in ipairs { 'einsum', 'stack', 'cat' } do assert(not types:find('function Tensor:' .. name .. '(', 1, true), name) end
    for _, name in ipairs { 'size', 'backward', 'requires_grad_', 'item', 'copy_', 'sum', 'rearrange' } do
      assert(types:find('\nfunction Tensor:' .. name .. '(', 1, true), name)
    end
    for _, name in ipairs { 'nn.Linear(inputs, outputs)', 'no_grad(', 'set_threads(n)', 'gradcheck(fn, inputs, options)', 'sweep.run(options)' } do
      assert(types:find('\nfunction tycho.' .. name, 1, true), name)
    end
  end)

  it('says what constructors, layers, optimisers and methods give, so that editors complete what follows', function()
    for result, names in pairs {
      Tensor = { 'tycho.ones(shape, dtype, device)', 'Tensor:to(target)', 'tycho.loss.nt_xent(p, temperature, options)' },
      Module = { 'tycho.nn.Linear(inputs, outputs)', 'tycho.nn.ReLU()', 'Module:to(device)' },
      Optimizer = { 'tycho.optim.Adam(parameters, options)' },
    } do
      for _, name in ipairs(names) do
        assert(types:find(('---@return tycho.%s\nfunction %s end'):format(result, name), 1, true), name)
      end
    end
    assert(types:find('\n---@field forward fun(self: tycho.Module, ...): tycho.Tensor\n', 1, true))
    assert(types:find('\nfunction Optimizer:zero_grad()', 1, true))
  end)

  it('declares no parameter that its function has not', function()
    local pending_parameters, checked = {}, 0
    for line in types:gmatch('[^\n]+') do
      local declared = line:match('^%-%-%-@param ([%w_]+)')
      local list = line:match('^function [%w_.:]+%((.*)%) end$')
      if declared then pending_parameters[#pending_parameters + 1] = declared end
      if list then
        for _, name in ipairs(pending_parameters) do
          checked = checked + 1
          assert((', ' .. list .. ','):find(', ' .. name .. ',', 1, true), line)
        end
        pending_parameters = {}
      end
    end
    assert(checked > 100)
  end)

  it('writes a reference from the same comments as the help, escaped', function()
    local comment = read(tycho.lib.root .. '/lua/tycho/ops/rearrange.lua'):match('^%-%- rearrange%b(): ([^\n]*)')
    assert(page:find((comment:gsub('&', '&amp;'):gsub('<', '&lt;'):gsub('>', '&gt;'):gsub('"', '&quot;')), 1, true))
    assert(page:find('<h2 id="settings">', 1, true) and page:find('mask_prob', 1, true))
    assert(not page:find('<script', 1, true) and not page:find('http', 1, true))
  end)

  it('is where .luarc.json looks for types', function()
    local settings = json.load(tycho.lib.root .. '/.luarc.json')
    assert.equal('LuaJIT', settings['runtime.version'])
    assert.equal('build/docs/types', settings['workspace.library'][1])
    assert(lfs.attributes(folder .. '/types/tycho.lua'))
  end)
end)
