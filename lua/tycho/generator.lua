-- tycho.generator(seed, stream): random numbers that are a pure function of (seed, stream, number of draws so far), the same
-- on every device and thread count. Its whole state is g.step, so a checkpoint needs one number.
local ffi = require 'ffi'
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'

local Generator = {}
Generator.__index = Generator
local draw = ffi.new('uint32_t[4]')

-- A graph would repeat what is drawn while it is captured.
local function check_captured()
  if lib.capturing then lib.refuse_captured('draws random numbers', 'draw them before the step and pass them to it') end
end

-- One uniform double in [0, 1).
function Generator:uniform()
  check_captured()
  lib.cpu.ty_philox(draw, self.seed, self.stream, self.step, 0)
  self.step = self.step + 1
  return (draw[0] * 2^21 + bit.rshift(draw[1], 11)) / 2^53
end

-- One draw from N(0, 1).
function Generator:normal()
  local u = 1 - self:uniform()
  return math.sqrt(-2 * math.log(u)) * math.cos(2 * math.pi * self:uniform())
end

-- One of 0, 1, ... n-1.
function Generator:integer(n) return math.floor(self:uniform() * n) end

-- Lua list: 0 .. n-1 in random order (Fisher-Yates).
function Generator:permutation(n)
  local list = {}
  for i = 1, n do list[i] = i - 1 end
  for i = n, 2, -1 do
    local j = self:integer(i) + 1
    list[i], list[j] = list[j], list[i]
  end
  return list
end

-- k different numbers of 0 .. n-1, in random order.
function Generator:choose(k, n)
  if k > n then lib.raise(('choose: cannot draw %d different numbers of %d'):format(k, n)) end
  local moved, list = {}, {}
  for i = 1, k do
    local j = i - 1 + self:integer(n - i + 1)
    list[i] = moved[j] or j
    moved[j] = moved[i - 1] or i - 1
  end
  return list
end

local function filled(symbol)
  return function(self, shape, dtype, device)
    check_captured()
    local t = tensor.empty(shape, dtype, device)
    lib.check(t.lib[symbol](t.c, self.seed, self.stream, self.step), t.lib)
    self.step = self.step + 1
    return t
  end
end
-- A tensor of uniforms in [0, 1), or of N(0, 1).
Generator.uniform_tensor = filled('ty_uniform')
Generator.normal_tensor = filled('ty_normal')

-- seed: whole number >= 0; stream: whole number that keeps independent uses of one seed apart.
return function(seed, stream)
  if type(seed) ~= 'number' or seed < 0 or seed ~= math.floor(seed) then
    lib.raise(('generator: seed must be a whole number >= 0, got %s'):format(tostring(seed)))
  end
  return setmetatable({ seed = seed, stream = stream or 0, step = 0 }, Generator)
end
