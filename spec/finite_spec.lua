-- break_on_nan: the op and the line that made the first number that is not finite.
local tycho = require 'tycho'
local failure = require 'spec.failure'
local says = require 'spec.says'

local function line() return debug.getinfo(2, 'l').currentline end

describe('break_on_nan', function()
  before_each(function() tycho.set_break_on_nan(true) end)
  after_each(function() tycho.set_break_on_nan(false) end)

  it('names the op and the line of a result', function()
    local at
    local message = failure(function()
      local x = tycho.tensor { 1, 0, -1 }
      at = line() + 1
      return x:log():exp()
    end)
    says(message, ('finite_spec.lua:%d: '):format(at), 'log made 1 NaN and 1 infinite of 3 numbers, shape (3); its inputs are finite')
    message = failure(function() return tycho.tensor { 1e30 } * tycho.tensor { 1e30 } end)
    says(message, 'mul made 1 infinite of 1 numbers')
  end)
  it('tells numbers that came from outside from those that an op made', function()
    local data = tycho.tensor { 1, 0 / 0 }
    says(failure(function() return tycho.cat { tycho.ones { 2 }, data } end), 'cat made 1 NaN of 4 numbers', 'input 2 is not finite already')
  end)
  it('names the op and the line of a gradient', function()
    local x = tycho.tensor { 0, 4 }:requires_grad_()
    local root, at = x:sqrt(), line()
    local message = failure(function() (root * root):sum():backward() end)
    says(message, 'the gradient of sqrt, computed at', ('finite_spec.lua:%d, has 1'):format(at))
  end)
  it('leaves large finite numbers, integers and empty tensors alone, and is off unless asked', function()
    local large = tycho.full({ 4 }, 3e38)
    assert.equal(4, large:neg():numel())
    local unfilled = tycho.full({ 4 }, 0 / 0)
    assert.equal(2, unfilled:narrow(0, 1, 2):numel()) -- a view makes no numbers
    assert.equal(0, tycho.empty({ 0 }):exp():numel())
    tycho.set_break_on_nan(false)
    assert.equal(3, tycho.tensor { 1, 0, -1 }:log():numel())
  end)
end)
