-- The levels of the float library: every op gives on each level that this machine runs what it gives on the plain one, and a level that
-- it cannot run is refused in one sentence. Nothing here can run a level that the machine lacks: such rows are pending.
local tycho = require 'tycho'
local lib = require 'tycho.lib'
local op = require 'tycho.op'
local failure = require 'spec.failure'
local outcome = require 'spec.outcome'

-- Results of fn() with the named level as the float library.
local function on_level(name, fn)
  local was = lib.cpu
  lib.devices.cpu.float = lib.level(name)
  local results = { pcall(fn) }
  lib.devices.cpu.float = was
  assert(results[1], results[2])
  return unpack(results, 2)
end

local function narrow(value)
  if tycho.is_tensor(value) then return value.type.real and tycho.empty_like(value, 'f32'):copy_(value) or value end
  if type(value) ~= 'table' then return value end
  local out = {}
  for k, v in pairs(value) do out[k] = narrow(v) end
  return out
end

-- Forward and gradients of one op on its sample, as lists of numbers.
local function results(name, sample)
  local args = narrow { sample(tycho.generator(3, 5)) }
  local leaves = {}
  local function mark(value)
    if tycho.is_tensor(value) and value.type.real then leaves[#leaves + 1] = value:requires_grad_() end
    if type(value) == 'table' and not tycho.is_tensor(value) and not value.training then for _, v in ipairs(value) do mark(v) end end
  end
  for i = 1, table.maxn(args) do mark(args[i]) end
  local y = op.find(name)(unpack(args, 1, table.maxn(args)))
  if y.node then y:backward(tycho.generator(4, 5):normal_tensor(y.shape)) end
  local lists = { y:contiguous():reshape({ -1 }):tolist() }
  for _, leaf in ipairs(leaves) do
    if leaf.grad then lists[#lists + 1] = leaf.grad:contiguous():reshape({ -1 }):tolist() end
  end
  return lists
end

local function largest(list)
  local value = 1e-6
  for _, v in ipairs(list) do value = math.max(value, math.abs(v)) end
  return value
end

local samples = {}
for _, row in ipairs(lib.rows) do
  samples[row.name] = function(g)
    local x = g:uniform_tensor({ 3, 5, 7 }, 'f64') + 0.5
    if row.arity == 1 then return x end
    return x, g:uniform_tensor({ 7 }, 'f64') + 0.5
  end
end
for _, name in ipairs(op.names()) do
  local record = op.record(name)
  samples[name] = samples[name] or record and record.sample
end

for _, level in ipairs(lib.levels) do
  local problem = lib.level_problem(level)
  describe('level ' .. level, function()
    if problem then
      it('is refused where it does not run', function()
        local message = failure(lib.level, level)
        assert.equal(('TYCHO_CPU=%s: %s'):format(level, problem), message)
      end)
      it('gives what plain gives', function() pending(problem) end)
      return
    end
    it('says its name', function() assert.equal(level, require('ffi').string(lib.level(level).ty_level())) end)
    if level == 'plain' then return end
    for name, sample in pairs(samples) do
      it('gives what plain gives: ' .. name, function()
        local expected = on_level('plain', function() return results(name, sample) end)
        local got = on_level(level, function() return results(name, sample) end)
        assert.equal(#expected, #got)
        for i, list in ipairs(expected) do
          local scale = largest(list)
          assert.equal(#list, #got[i])
          for j, v in ipairs(list) do assert(math.abs(v - got[i][j]) <= 1e-5 * scale, ('%d: %.9g and %.9g'):format(j, v, got[i][j])) end
        end
      end)
    end
  end)
end

describe('TYCHO_CPU and OMP_NUM_THREADS', function()
  local function tycho_with(environment, code)
    return outcome(('env %s ./tycho -e %q'):format(environment, code))
  end
  it('choose the level', function()
    assert.equal('plain\nstatus 0\n', tycho_with('TYCHO_CPU=plain', "print(require('ffi').string(tycho.lib.cpu.ty_level()))"))
  end)
  it('are refused in one sentence when wrong', function()
    assert.equal("tycho: TYCHO_CPU must be one of avx512, avx2, plain, got 'sse9'\nstatus 1\n", tycho_with('TYCHO_CPU=sse9', 'tycho.ones{1}'))
    local out = tycho_with('OMP_NUM_THREADS=4097', 'tycho.ones{1}')
    assert.truthy(out:find('^tycho: OMP_NUM_THREADS=4097: threads: expected 1 to %d+ %(this machine\'s cores%), got 4097\nstatus 1\n$'), out)
  end)
  it('so are thread counts', function()
    for _, n in ipairs { 0, -1, 4097, 1.5, 'two' } do
      local message = failure(tycho.set_threads, n)
      assert.truthy(message:find('threads: expected', 1, true), message)
    end
  end)
end)
