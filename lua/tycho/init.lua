-- The framework's front door: tensors, ops, gradients. Everything else loads when it is first named:
-- tycho.conv2d is lua/tycho/ops/conv2d.lua, tycho.nn.Linear is lua/tycho/nn/Linear.lua, tycho.io.npy is lua/tycho/io/npy.lua.
require 'tycho.backward'
local lib = require 'tycho.lib'
local storages = require 'tycho.storage'
local tensor = require 'tycho.tensor'
local autograd = require 'tycho.autograd'
local scope = require 'tycho.scope'
local finite = require 'tycho.finite'
local op = require 'tycho.op'
local autocast = require 'tycho.autocast'

local M = { version = '0.1.0', lib = lib, autocast = autocast.run }

for _, name in ipairs { 'tensor', 'empty', 'empty_image', 'empty_like', 'full', 'zeros', 'ones', 'zeros_like', 'arange', 'is_tensor' } do
  M[name] = tensor[name]
end
M.no_grad, M.with_grad, M.scope, M.keep = autograd.no_grad, autograd.with_grad, scope.scope, scope.keep
for _, name in ipairs { 'memory', 'set_memory_limit', 'collect' } do M[name] = storages[name] end
for _, name in ipairs { 'interrupted', 'on_interrupt' } do M[name] = lib[name] end

function M.set_threads(n)
  if type(n) ~= 'number' or n ~= math.floor(n) then lib.raise(('threads: expected a whole number, got %s'):format(tostring(n))) end
  lib.check(lib.cpu.ty_set_threads(n))
end
function M.threads() return lib.cpu.ty_threads() end

-- on: convolutions only by algorithms whose rounding error is that of direct summation. Off at first.
function M.set_exact(on) lib.check(lib.cpu.ty_set_exact(on and 1 or 0)) end

-- on: the first number that is not finite, in a result or a gradient, raises and names the op and the line that made it. Off at first.
M.set_break_on_nan = finite.set

local folders = { nn = true, loss = true, optim = true, data = true, io = true, train = true, plot = true, repl = true }

-- A table whose fields are the modules in lua/tycho/FOLDER.
local function folder(name)
  return setmetatable({}, {
    __index = function(t, key)
      local module_name = ('tycho.%s.%s'):format(name, key)
      if not package.searchpath(module_name, package.path) then return nil end
      local module = require(module_name)
      rawset(t, key, module)
      return module
    end,
  })
end

setmetatable(M, {
  __index = function(t, key)
    if type(key) ~= 'string' then return nil end
    local value
    if folders[key] then
      value = package.searchpath('tycho.' .. key, package.path) and require('tycho.' .. key) or folder(key)
    else
      value = op.find(key)
      if not value and package.searchpath('tycho.' .. key, package.path) then value = require('tycho.' .. key) end
    end
    rawset(t, key, value)
    return value
  end,
})

return M
