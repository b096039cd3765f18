-- Training in mixed precision: float32 weights follow those of float32 within rounding, the loss scale moves and is kept, overflows are told of.
local tycho = require 'tycho'
local ffi = require 'ffi'
local json = require 'tycho.io.json'
local policies = require 'experiments.contextssl.policies'
local failure = require 'spec.failure'
local files = require 'spec.files'
local on_each_device = require 'spec.on_each_device'
local small_training = require 'spec.small_training'
local stderr_to = require 'spec.stderr_to'
pcall(ffi.cdef, 'int kill(int pid, int signal); int getpid(void);')

local folder = files.folder()

local with, smaller = small_training.with, small_training.smaller
local function run(where, changes) return small_training.run(folder, where, changes) end

local function rows(result)
  local list = {}
  for line in io.lines(result.path .. '/metrics.jsonl') do list[#list + 1] = json.decode(line, 'metrics') end
  return list
end

local function values_of(model)
  local out = {}
  for _, entry in ipairs(model:state_dict()) do out[entry[1]] = entry[2]:tolist() end
  return out
end

on_each_device('training in mixed precision on', function(name)
  setup(function() small_training.render(folder, 12) end)
  teardown(function() os.execute('rm -rf ' .. folder .. '/*') end)

  it('follows float32 within the rounding, in float32 weights', function()
    local _, plain = with({ losses = smaller }, function() return run(name, { epochs = 1 }) end)
    local wanted = rows(plain)[1]
    assert.is_nil(wanted.loss_scale)
    for amp, tolerance in pairs { fp16 = 0.02, bf16 = 0.1 } do
      local seen = {}
      local model, result = with({ losses = function(...)
        local loss, step = smaller(...)
        seen[#seen + 1] = { loss = loss.dtype, feature = step.feature.dtype, normalized = step.normalized.dtype, nt_xent = step.nt_xent.dtype,
          prediction = step.prediction.dtype }
        return loss, step
      end }, function() return run(name, { epochs = 1, amp = amp }) end)
      local short = amp == 'fp16' and 'f16' or 'bf16'
      assert.same({ loss = 'f32', feature = short, normalized = 'f32', nt_xent = 'f32', prediction = short }, seen[1])
      for _, entry in ipairs(model:named_parameters()) do assert.equal('f32', entry[2].dtype) end
      local row = rows(result)[1]
      for _, key in ipairs { 'loss', 'ce_feat', 'ce_pred', 'rot_mse', 'color_mse' } do
        assert.near(wanted[key], row[key], tolerance * math.max(1, math.abs(wanted[key])), amp .. ' ' .. key)
      end
      assert.is_true(row.loss ~= wanted.loss)
      assert.equal(amp == 'fp16' and 'number' or 'nil', type(row.loss_scale))
    end
  end)

  it('goes on after a stop as if there had been none, loss scale included', function()
    local measure = policies.measure
    local function measured(stop_at)
      local steps = 0
      return function(meters, out, ...)
        steps = steps + 1
        if steps == stop_at then ffi.C.kill(ffi.C.getpid(), 15) end
        return measure(meters, out, ...)
      end
    end
    local calls = 0
    local function spoiled(...) -- whose first step overflows; an epoch has 3
      calls = calls + 1
      local loss, step = smaller(...)
      return calls == 1 and loss * 1e30 or loss, step
    end
    local function train(stop_at, resume)
      return with({ measure = measured(stop_at), losses = spoiled }, function() return run(name, { amp = 'fp16', epochs = 1, resume = resume }) end)
    end
    local first, uninterrupted = train()
    calls = 0
    local _, stopped, finished = train(2)
    assert.is_false(finished)
    local second, resumed = train(nil, stopped.path)
    assert.same(values_of(first), values_of(second))
    local logged = rows(uninterrupted)
    assert.same(logged, rows(resumed))
    assert.equal(32768, logged[1].loss_scale)
    assert.equal(1, logged[1].skipped_steps)
  end)

  it('ends in one sentence when every step overflows', function()
    local message = failure(run, name, { amp = 'fp16', weight_equiv_loss = 1e30, epochs = 1 })
    assert.truthy(message:find('the gradients of the last 3 steps were not finite in float16, down to a loss scale of 8192, and no weight has '
      .. 'changed since; train with amp=bf16 or amp=off, or with a lower learning_rate', 1, true), message)
    assert.is_nil(message:find '\n')
  end)

  it('is refused on the CPU, and where a person looks for NaN', function()
    local settings = require 'experiments.contextssl.settings'
    local function refused(...)
      local message = failure(settings.load, 'config.yml', { 'data_dir=x', ... })
      return message
    end
    assert.equal('amp=fp16: mixed precision is computed on cuda only, and device=cpu was asked for; leave it out, or set amp=off',
      refused('amp=fp16', 'device=cpu'))
    assert.truthy(refused('amp=fp16', 'break_on_nan=True', 'device=' .. name):find('break_on_nan: with amp=fp16', 1, true))
    assert.truthy(refused('amp=fp8'):find('amp must be off, fp16 or bf16, got fp8', 1, true))
    tycho.set_break_on_nan(false)
  end)

  it('is recommended where everything is computed in float32', function()
    local settings, config_file = require 'experiments.contextssl.settings', require 'tycho.config'
    local function notes(...)
      local config = stderr_to('/dev/null', settings.load, 'config.yml', { 'data_dir=x', 'device=' .. name, ... })
      return table.concat(config_file.notes(config), '\n')
    end
    assert.truthy(notes():find('^amp=off on ' .. name:gsub('%-', '%%-') .. ': .*amp=fp16 trains as the reference does, tf32=true'))
    for _, setting in ipairs { 'amp=fp16', 'amp=bf16', 'tf32=True' } do assert.equal('', notes(setting)) end
    require('tycho.device').set_tf32(name, false)
  end)
end)
