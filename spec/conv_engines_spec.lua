-- The choice of cuDNN's engines, with a stand-in for its engines on the host build.
local tycho = require 'tycho'
local cache = require 'tycho.cache'
local device = require 'tycho.device'
local hash = require 'tycho.hash'
local json = require 'tycho.io.json'
local files = require 'spec.files'
local setenv = require 'spec.setenv'
local stderr_to = require 'spec.stderr_to'

local folder = files.folder()
local problem = device.problem 'cuda-host'
local now = tycho.lib.cpu.ty_now

-- Calls fn with engines of {seconds =, workspace = [opt], fails = [opt]} each, by number from 0, in the place of the library's. fn is given a fresh
-- module, which knows no choices but those of files, the numbers that were put to use, and a function that counts the convolutions so far.
local function with_engines(engines, fn)
  local entry = tycho.lib.devices['cuda-host']
  local real, used, runs = entry.float, {}, 0
  local function convolve()
    runs = runs + 1
    local engine, start = engines[used[#used]], now()
    repeat until now() - start >= engine.seconds
    return engine.fails and 1 or 0
  end
  entry.float = setmetatable({ ty_conv2d = convolve, ty_conv2d_back_input = convolve, ty_conv2d_back_weight = convolve,
    ty_use_conv_engine = function(_, _, _, _, _, _, number, workspace)
      workspace[0] = engines[number] and (engines[number].workspace or 0) or -1
      if engines[number] then used[#used + 1] = number end
      return 0
    end }, { __index = real })
  entry.cudnn_benchmark = true
  local loaded = package.loaded['tycho.conv_engines']
  package.loaded['tycho.conv_engines'] = nil
  local ok, why = pcall(function() fn(require 'tycho.conv_engines', used, function() return runs end) end)
  package.loaded['tycho.conv_engines'] = loaded
  entry.float, entry.cudnn_benchmark = real, false
  if not ok then error(why, 0) end
end

local function path_of_choices() return ('%s/cudnn-%s.json'):format(cache(), hash(device.describe 'cuda-host')) end

local function convolution(images)
  local function image(...) return tycho.empty_image({ ... }, 'f32', 'cuda-host') end
  return image(images, 4, 8, 8), image(images, 3, 8, 8), image(4, 3, 3, 3), 1, 1
end

describe("cuDNN's engines", function()
  local count, own = 0, nil
  before_each(function()
    count = count + 1
    own = setenv('TYCHO_CACHE', ('%s/%d'):format(folder, count))
  end)
  after_each(function() setenv('TYCHO_CACHE', own) end)
  local function check(name, body)
    it(name, function()
      if problem then return pending(problem) end
      body()
    end)
  end
  local slow, fast = { seconds = 2e-3 }, { seconds = 1e-4 }

  check('are timed once, and the fastest is kept for later processes', function()
    for direction = 0, 2 do
      with_engines({ [0] = slow, fast, slow }, function(choice, used, runs)
        choice.choose(direction, convolution(2))
        assert.equal(1, used[#used])
        local before = { #used, runs() }
        choice.choose(direction, convolution(2))
        assert.same(before, { #used, runs() })
      end)
      with_engines({ [0] = fast, slow, slow }, function(choice, used, runs) -- another process, in which it is slow
        choice.choose(direction, convolution(2))
        assert.same({ 1 }, used)
        assert.equal(0, runs())
        choice.choose(direction, convolution(3))
        assert.equal(0, used[#used])
      end)
    end
  end)

  check('that fail, or want more than 300 MB and more than the first, are left alone', function()
    with_engines({ [0] = slow, { seconds = 1e-4, fails = true }, { seconds = 1e-4, workspace = 301e6 } }, function(choice, used)
      choice.choose(0, convolution(2))
      assert.equal(0, used[#used])
    end)
    local first = { seconds = 2e-3, workspace = 400e6 }
    with_engines({ [0] = first, { seconds = 1e-5, workspace = 401e6 }, { seconds = 1e-4, workspace = 400e6 } }, function(choice, used)
      choice.choose(0, convolution(3))
      assert.equal(2, used[#used])
    end)
  end)

  check('are timed once more only where they may be the fastest', function()
    local function runs_of(last)
      local done
      with_engines({ [0] = fast, last }, function(choice, _, runs)
        choice.choose(0, convolution(2))
        done = runs()
      end)
      assert(os.remove(path_of_choices()))
      return done
    end
    assert(runs_of { seconds = 2e-3 } < runs_of { seconds = 1e-4 })
  end)

  check('are not timed in a captured step, nor for an empty batch, nor unasked', function()
    with_engines({ [0] = slow, fast }, function(choice, used, runs)
      tycho.lib.capturing = true
      choice.choose(0, convolution(2))
      tycho.lib.capturing = false
      choice.choose(0, convolution(0))
      tycho.lib.devices['cuda-host'].cudnn_benchmark = false
      choice.choose(0, convolution(2))
      assert.same({ {}, 0 }, { used, runs() })
    end)
  end)

  check('are timed anew where what was kept is damaged, or names one that is not there', function()
    for _, text in ipairs { '{"engines": {', json.encode { device = device.describe 'cuda-host', engines = { KEY = 9 } } } do
      with_engines({ [0] = slow, fast }, function(choice, used)
        choice.choose(0, convolution(2))
        local key = next(json.load(path_of_choices()).engines)
        files.write(path_of_choices(), (text:gsub('KEY', key)))
        assert.equal(1, used[#used])
      end)
      with_engines({ [0] = slow, slow, fast }, function(choice, used)
        choice.choose(0, convolution(2))
        assert.equal(2, used[#used])
      end)
    end
  end)

  check('are chosen for one process where they cannot be kept, which is told once', function()
    setenv('TYCHO_CACHE', '/proc/none')
    stderr_to(folder .. '/said', function()
      with_engines({ [0] = slow, fast }, function(choice, used)
        choice.choose(0, convolution(2))
        choice.choose(1, convolution(2))
        assert.equal(1, used[#used])
      end)
    end)
    local _, times = files.read(folder .. '/said'):gsub('cudnn_benchmark: choices of engines last as long as this process', '')
    assert.equal(1, times)
  end)

  check('leave the numbers as they are where the library has one', function()
    local generator = tycho.generator(1)
    local x, w = generator:normal_tensor({ 2, 3, 8, 8 }):to 'cuda-host', generator:normal_tensor({ 4, 3, 3, 3 }):to 'cuda-host'
    local function gradients()
      x.grad, w.grad = nil, nil
      tycho.sum(tycho.conv2d(x:requires_grad_(), w:requires_grad_(), 1, 1)):backward()
      return hash(x.grad) .. hash(w.grad)
    end
    local plain = gradients()
    device.set_cudnn_benchmark('cuda-host', true)
    local chosen = gradients()
    device.set_cudnn_benchmark('cuda-host', false)
    assert.equal(plain, chosen)
    local numbers = {}
    for _, engine in pairs(json.load(path_of_choices()).engines) do numbers[#numbers + 1] = engine end
    assert.same({ 0, 0, 0 }, numbers)
  end)
end)
