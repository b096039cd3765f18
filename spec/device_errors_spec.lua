-- Devices that cannot be used: plugins, drivers and libraries that are missing, old or damaged, stood in for by small stubs; and memory that ends in
-- the middle of a training step.
local lfs = require 'lfs'
local tycho = require 'tycho'
local device = require 'tycho.device'
local files = require 'spec.files'
local says = require 'spec.says'
local shell = require 'spec.shell'
local lib = tycho.lib

local root = lfs.currentdir()
local folder = files.folder()

local write = files.inside(folder)
local function run(line) return shell(line, folder) end
-- A shared object from C.
local function stub(path, text, flags)
  write('stub.c', text)
  local out, status = run(('mkdir -p %s && cc -w -shared -fPIC stub.c -o %s %s'):format(path:match '^(.*)/', path, flags or ''))
  assert(status == 0, out)
end

-- What a process says of cuda.
local function problem(environment, before)
  write('ask.lua', (before or '') .. "\nprint(require('tycho').device.problem 'cuda')\nprint(require('tycho').ones({ 2 }):sum():item())")
  local out = run(('env %s %s/tycho ask.lua'):format(environment, root))
  local sentence, rest = out:match '^([^\n]*)\n(.*)$'
  assert.equal('2\n', rest, out) -- the process goes on
  return sentence
end

describe('the plugin', function()
  setup(function()
    run(('mkdir build && cp %s/build/libtycho-plain.so build/'):format(root))
  end)

  it('of another version is named with both and what to run', function()
    stub('build/libtycho_cuda.so', 'int ty_version(void) { return 2; }')
    says(problem 'TYCHO_CPU=plain TYCHO_BUILD=build', 'build/libtycho_cuda.so has version 2, the Lua side expects ', ': run make cuda in ')
  end)

  it('that is damaged is named', function()
    write('build/libtycho_cuda.so', 'not a library')
    says(problem 'TYCHO_CPU=plain TYCHO_BUILD=build', 'cannot load build/libtycho_cuda.so: ', 'run make cuda in ')
  end)

  -- Some want the plugin itself, and no driver that is real.
  local built = lfs.attributes(lib.path_of 'libtycho_cuda') and pcall(device.library, 'cuda')
  local real = device.problem 'cuda' == nil
  local skipped = not built and 'libtycho_cuda.so does not load here' or real and 'there is a GPU'

  local driver = [[
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>
    static int nothing(void) { return 0; }
    int cuInit(unsigned flags) { return atoi(getenv("STUB_INIT")); }
    int cuDriverGetVersion(int *version) { *version = atoi(getenv("STUB_DRIVER")); return 0; }
    int cuGetExportTable(const void **table, const void *id) { return 1; }
    int cuGetProcAddress_v2(const char *name, void **f, int version, uint64_t flags, int *status) {
      *f = !strcmp(name, "cuInit") ? (void *)cuInit : !strcmp(name, "cuDriverGetVersion") ? (void *)cuDriverGetVersion
         : !strcmp(name, "cuGetExportTable") ? (void *)cuGetExportTable
         : !strcmp(name, "cuGetProcAddress") ? (void *)cuGetProcAddress_v2 : (void *)nothing;
      return 0;
    }]]
  local function with_driver(version, init, environment)
    stub('driver/libcuda.so.1', driver)
    return problem(('LD_LIBRARY_PATH=driver STUB_DRIVER=%d STUB_INIT=%d %s'):format(version, init, environment or ''))
  end

  it('says that there is no driver, that it is too old, that it does not start', function()
    if skipped then return pending(skipped) end
    says(problem '', 'there is no NVIDIA driver on this machine (libcuda.so.1 is missing)')
    says(with_driver(12040, 0), 'the NVIDIA driver is for CUDA 12.4 and too old for this library (CUDA 13.', 'update the driver')
    says(with_driver(13000, 999), 'the NVIDIA driver does not start: unknown error')
  end)

  it('says that there is no GPU, and that CUDA_VISIBLE_DEVICES names none', function()
    if skipped then return pending(skipped) end
    says(with_driver(13000, 100), 'the NVIDIA driver finds no GPU on this machine')
    says(with_driver(13000, 100, 'CUDA_VISIBLE_DEVICES=7'), 'CUDA_VISIBLE_DEVICES=7 names no GPU of this machine')
  end)

  it('says that cuDNN is too old', function()
    if skipped then return pending(skipped) end
    write('versions', 'libcudnn.so.9 { global: *; };')
    stub('old/libcudnn.so.9', 'unsigned long cudnnGetVersion(void) { return 90102; }', '-Wl,-soname,libcudnn.so.9,--version-script=versions')
    says(with_driver(13000, 0, 'TYCHO_CUDA_PATH=old'), 'cuDNN 9.1.2 is too old: install cuDNN 9.8 or later', 'TYCHO_CUDA_PATH')
  end)

  it('says which library it misses', function()
    stub('build/libmissing.so.9', 'int missing(void) { return 0; }', '-Wl,-soname,libmissing.so.9')
    stub('build/libtycho_cuda.so', 'int missing(void); int ty_version(void) { return missing(); }', 'build/libmissing.so.9')
    os.remove(folder .. '/build/libmissing.so.9')
    says(problem 'TYCHO_CPU=plain TYCHO_BUILD=build',
      'libtycho_cuda needs libmissing.so.9, which was not found; install it, or write its folder into TYCHO_CUDA_PATH')
  end)

  it("finds NVIDIA's libraries in the wheels of the Python on the path, where nothing else has them", function()
    stub('site/nvidia/cudnn/lib/libonlythere.so.9', 'int here(void) { return 0; }')
    write('python3', '#!/bin/sh\necho asked >> asked\necho $PWD/elsewhere\necho $PWD/site/nvidia\n')
    write('find.lua', [[
      local find = require('tycho.device').nvidia
      print(find 'libm.so.6' ~= nil, (io.open 'asked'))
      print(select(2, find 'libonlythere.so.9'), (find 'libnowhere.so.9'))]])
    local out = run(('chmod +x python3; env PATH="$PWD:$PATH" %s/tycho find.lua; cat asked'):format(root))
    assert.equal(('true\tnil\n%s/site/nvidia/cudnn/lib\tnil\nasked\n'):format(folder), out)
  end)

  it('is what a training asks for by name: one sentence, no run, and nothing computed elsewhere', function()
    write('build/libtycho_cuda.so', 'not a library')
    local out, status = run(('env TYCHO_CPU=plain TYCHO_BUILD=build %s/tycho %s/experiments/main.lua device=cuda data_dir=none'):format(root, root))
    assert.equal(1, status)
    says(out, 'device=cuda: cannot load build/libtycho_cuda.so')
    assert.is_nil(lfs.attributes(folder .. '/runs'))
  end)
end)

describe('memory that ends', function()
  local host = device.problem 'cuda-host'
  local settings = 'data_dir=data resolution=16 width=2 projection_dim=16 n_embd=8 n_layer=1 n_head=2 block_size=4 batch_size=5 epochs=2 '
    .. 'warmup_epochs=0 learning_rate=0.03 random_mask=True log_interval=5 save_interval=2 checkpoint_minutes=0 device=cuda-host '
  local function train(script, arguments)
    return run(('env OMP_NUM_THREADS=1 %s/tycho %s %s %s'):format(root, script, settings, arguments))
  end
  setup(function()
    local out, status = run(('%s/tycho %s/experiments/toy3d.lua out=data objects=10 val_objects=3 views=3 size=16 classes=2'):format(root, root))
    assert(status == 0, out)
  end)

  -- From the call'th losses on the device has no byte left; the first captured step is the second of one environment.
  local function short(call, arguments, advice)
    write('short.lua', ([[
      local training = require 'experiments.contextssl.training'
      local losses, steps = training.policies.losses, 0
      function training.policies.losses(...)
        steps = steps + 1
        local loss, out = losses(...)
        if steps == %d then
          require 'spec.full_memory' 'cuda-host'
        end
        return loss, out
      end
      dofile '%s/experiments/main.lua']]):format(call, root))
    local out, status = train('short.lua', arguments .. ' run_dir=short')
    assert.equal(1, status)
    says(out, 'out of memory on cuda-host: asked for ', ' MB live', 'use a smaller batch or model, or ' .. advice)
    assert.is_nil(out:find('limit', 1, true))
    out, status = train(root .. '/experiments/main.lua', arguments .. ' run_dir=short resume=auto')
    assert(status == 0, out)
    out, status = train(root .. '/experiments/main.lua', arguments .. ' run_dir=whole')
    assert(status == 0, out)
    for _, name in ipairs { 'checkpoint.safetensors', 'metrics.jsonl', 'simclr_resnet18_epoch2.pt' } do
      assert.equal('', (run(('cmp short/%s whole/%s'):format(name, name))))
    end
    assert.equal('', (run 'find short -name "*.tmp"; rm -r short whole'))
  end
  it('in the middle of a step leaves a checkpoint from which the run ends as if it had not', function()
    if host then return pending(host) end
    short(4, 'capture=False', 'tycho.scope')
  end)
  it('while a step is captured does so too', function()
    if host then return pending(host) end
    short(2, 'env_ratio=[1,0,0]', 'go without graphs (capture=false in a training)')
  end)

  it('is told once the caches are empty, and the process goes on', function()
    if host then return pending(host) end
    write('fill.lua', [[
      local tycho = require 'tycho'
      local x = tycho.ones({ 1000, 1000 }, 'f32', 'cuda-host')
      x.storage:free() -- cached, and too little for what is asked for next, as a kernel's scratch memory
      local library = tycho.lib.devices['cuda-host'].float
      local block = library.ty_alloc(4800000)
      print(block ~= nil)
      library.ty_free(block, 4800000)
      print(pcall(tycho.zeros, { 1000, 2000 }, 'f32', 'cuda-host'))
      print(tycho.ones({ 3 }, 'f32', 'cuda-host'):sum():item())]])
    local out = run(('env TYCHO_HOST_MEMORY=7000000 %s/tycho fill.lua'):format(root))
    local first, second, third = out:match '^(.-)\n(.-)\n(.-)\n$'
    assert.equal('true', first)
    says(second, 'false', 'out of memory on cuda-host: asked for 8.0 MB')
    assert.equal('3', third)
  end)

  it('is not what a failure of earlier work is taken for', function()
    if host then return pending(host) end
    write('broken.lua', [[
      local tycho = require 'tycho'
      local x = tycho.ones({ 64 }, 'f32', 'cuda-host')
      local half = tycho.kernel { cuda = '__global__ void half(real *y, const real *x, int64_t n) { if (threadIdx.x < 8) __syncthreads(); }' }
      half(x)
      tycho.zeros({ 5000000 }, 'f32', 'cuda-host').storage:free()
      require('tycho.storage').clear_cache() -- gives a block back, for which the device finishes its work
      print(pcall(tycho.zeros, { 5000000 }, 'f32', 'cuda-host'))
      print(tycho.ones({ 3 }, 'f32', 'cuda-host'):sum():item())]])
    local out = run(('env TYCHO_CACHE=%s/cache %s/tycho broken.lua'):format(folder, root))
    local first, second = out:match '^(.-)\n(.-)\n$'
    says(first, 'false', 'wait: the device failed: a barrier or a shuffle was not reached by all threads; earlier work may be at fault')
    assert.equal('3', second)
  end)
end)
