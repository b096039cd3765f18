-- cuDNN makes a plan for every convolution of ResNet-18 at 128x128 in all three directions, for devices that need not be here. Skipped where the
-- CUDA plugin is not built or cuDNN is not installed.
local ffi = require 'ffi'
local tycho = require 'tycho'
local device = require 'tycho.device'
local convolutions = require 'spec.gpu_check.convolutions'

local IMAGES = 1024

-- Properties of the devices, as cuDNN reads them.
local function properties(name, capability, multiprocessors, shared, threads, blocks)
  return ('{"maxGridSize":[2147483647,65535,65535],"maxBlockSize":[1024,1024,64],"deviceVer":%d,"driverVer":13000,"cudaDeviceId":0,'
    .. '"totalGlobalMem":80000000000,"regsPerBlock":65536,"multiProcessorCount":%d,"warpSize":32,"maxSharedMemoryPerBlock":49152,'
    .. '"maxSharedMemoryPerBlockOptin":%d,"reservedSharedMemoryPerBlock":1024,"maxRegistersPerSM":65536,"maxCtasPerSM":%d,'
    .. '"maxThreadsPerBlock":1024,"maxThreadsPerSM":%d,"pciDeviceId":0,"isTccDriver":0,"supportCoopLaunch":1,"smClockRateKHz":1980000,'
    .. '"memClockRateKHz":3201000,"l2CacheSize":41943040,"deviceName":"%s"}'):format(capability, multiprocessors, shared, blocks, threads, name)
end
local devices = {
  { 'sm_80', properties('NVIDIA A100', 800, 108, 166912, 2048, 32) },
  { 'sm_86', properties('NVIDIA RTX A6000', 860, 84, 101376, 1536, 16) },
  { 'sm_90', properties('NVIDIA H200', 900, 132, 232448, 2048, 32) },
}

-- A channels-last tensor without memory. dtype: tycho.h's code.
local function shape(dtype, n, c, h, w)
  local t = ffi.new 'ty_tensor'
  t.ndim, t.dtype, t.device = 4, dtype, 1
  t.shape[0], t.shape[1], t.shape[2], t.shape[3] = n, c, h, w
  t.stride[0], t.stride[1], t.stride[2], t.stride[3] = h * w * c, 1, w * c, c
  return t
end

describe('cuDNN without a device', function()
  local ok, library = pcall(device.library, 'cuda')
  for i = 1, 3 * #devices do
    local d, dtype = devices[(i - 1) % 3 + 1], ({ 'f32', 'f16', 'bf16' })[math.ceil(i / 3)]
    it(('plans every convolution of %s for %s'):format(dtype, d[1]), function()
      if not ok then return pending(library) end
      local code = require('tycho.dtype')[dtype].code
      local workspace = ffi.new 'int64_t[1]'
      for _, s in ipairs(convolutions) do
        local inputs, outputs, kernel, stride, size = unpack(s)
        local x, w = shape(code, IMAGES, inputs, size, size), shape(code, outputs, inputs, kernel, kernel)
        local y = shape(code, IMAGES, outputs, size / stride, size / stride)
        for direction = 0, 2 do
          if not (inputs == 3 and direction == 1) then
            local status = library.ty_plan_conv(d[2], direction, y, x, w, stride, (kernel - 1) / 2, 0, workspace)
            assert(status == 0, status ~= 0 and ('direction %d: %s'):format(direction, ffi.string(library.ty_error())))
            assert(workspace[0] < 2 ^ 30, ('direction %d of %s takes %.0f MB'):format(direction, table.concat(s, ' '), tonumber(workspace[0]) / 1e6))
          end
        end
      end
    end)
  end

  it('has several engines for a convolution and tells where they end', function()
    if not ok then return pending(library) end
    local code, workspace = require('tycho.dtype').f16.code, ffi.new 'int64_t[1]'
    local x, w = shape(code, IMAGES, 64, 32, 32), shape(code, 64, 64, 3, 3)
    for direction = 0, 2 do
      for engine, there in pairs { [0] = true, true, true, [1000] = false } do
        assert.equal(0, library.ty_plan_conv(devices[3][2], direction, x, x, w, 1, 1, engine, workspace))
        assert.equal(there, workspace[0] >= 0)
      end
    end
    -- The heuristics name one that is fit for this; the others are of the fallback list.
    local x32, w32 = shape(0, IMAGES, 64, 32, 32), shape(0, 64, 64, 3, 3)
    for engine = 0, 2 do
      assert.equal(0, library.ty_plan_conv(devices[3][2], 2, x32, x32, w32, 1, 1, engine, workspace))
      assert(workspace[0] >= 0, engine)
    end
  end)

  it('names what it cannot do', function()
    if not ok then return pending(library) end
    local x, w, y = shape(0, 2, 3, 8, 8), shape(0, 4, 5, 3, 3), shape(0, 2, 4, 8, 8)
    assert.equal(1, library.ty_plan_conv(devices[1][2], 0, y, x, w, 1, 1, 0, ffi.new 'int64_t[1]'))
    assert.truthy(ffi.string(library.ty_error()):find('takes 5 channels', 1, true))
  end)
end)

describe('the CUDA plugin', function()
  it('loads without a driver and says so', function()
    local loaded, why = pcall(device.library, 'cuda')
    if not loaded then return pending(why) end
    local problem = device.problem 'cuda'
    if problem then
      assert.truthy(problem:find 'driver' or problem:find 'CUDA_VISIBLE_DEVICES' or problem:find 'GPU', problem)
    else
      assert.equal('cuda', tycho.zeros({ 1 }, 'f32', 'cuda').device)
    end
  end)
end)
