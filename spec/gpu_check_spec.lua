-- The check of a GPU, tried on the kernels' build for the CPU: what it writes, and that it says what is wrong.
local device = require 'tycho.device'
local json = require 'tycho.io.json'
local files = require 'spec.files'
local says = require 'spec.says'
local shell = require 'spec.shell'

local folder = files.folder()

local function check(arguments)
  return shell(('./tycho spec/gpu_check/run.lua out=%s %s'):format(folder, arguments))
end

describe('gpu-check', function()
  it('runs its sections and writes what they found', function()
    local problem = device.problem 'cuda-host'
    if problem then return pending(problem) end
    local out, status = check 'device=cuda-host sections=ops,engines,torch'
    assert(status == 0, out)
    local found = json.load(folder .. '/cuda-host.json')
    local engines, torch, ops = unpack(found.sections)
    assert.same({ 'engines', 'torch', 'ops' }, { engines.name, torch.name, ops.name })
    assert.same({ 'passed', 'skipped: PyTorch is measured on a GPU only', 'passed' }, { engines.status, torch.status, ops.status })
    assert(#ops.rows > 20)
    for _, row in ipairs(ops.rows) do assert(row.milliseconds > 0 and (row.tflops or row.gigabytes_per_second) > 0, row.what) end
    assert.equal(2 * (11 * 3 - 1) + 2, #engines.rows)
    for _, row in ipairs(engines.rows) do assert(row.fastest > 0 and row.fastest <= row.first, row.what) end
    local text = files.read(folder .. '/cuda-host.md')
    assert.truthy(text:find('| gather and normalise images | float32 |', 1, true), text)
    assert.equal('==== engines ====\n==== ops ====\n', files.read(folder .. '/cuda-host.log'))
  end)

  it('leaves out what there is no time for', function()
    local problem = device.problem 'cuda-host'
    if problem then return pending(problem) end
    local out, status = check 'device=cuda-host sections=ops,curves seconds=9'
    assert.equal(0, status)
    assert.truthy(out:find('skipped: 9 seconds were over', 1, true), out)
  end)

  it('tells what passed from what was skipped', function()
    local problem = device.problem 'cuda-host'
    if problem then return pending(problem) end
    for name, said in pairs { busted = '3 passed, 0 failed, 0 skipped', ['compute-sanitizer'] = '========= Error: Device not supported.' } do
      files.write(('%s/%s'):format(folder, name), ("#!/bin/sh\necho '%s'\n"):format(said))
    end
    local out, status = shell(('chmod +x %s/busted %s/compute-sanitizer; PATH=%s:$PATH ./tycho spec/gpu_check/run.lua out=%s %s'):format(folder,
      folder, folder, folder, 'device=cuda-host sections=specs,sanitizer'))
    assert.equal(0, status)
    says(out, 'specs      passed  (', 'sanitizer  skipped: compute-sanitizer does not support this device')
  end)

  it('believes no sanitizer that reports an error or has not looked', function()
    local head, sum = '========= COMPUTE-SANITIZER\n', '========= ERROR SUMMARY: 0 errors\n'
    for said, expected in pairs {
      [head .. sum] = '"ok":true', [head .. '========= Invalid __global__ write of size 4 bytes\n=========     at k\n' .. sum] = '"errors":1,',
      [head] = '"ok":false', [head .. '========= Error: Race reported between Write access and Read access\n'] = '"ok":false',
      [head .. '========= Error: Device not supported. Please refer to the documentation\n'] = '"unsupported":',
    } do
      files.write(folder .. '/compute-sanitizer', ("#!/bin/sh\ncat <<'END'\n%sEND\n"):format(said))
      says((shell(('chmod +x %s/compute-sanitizer; PATH=%s:$PATH ./tycho spec/gpu_check/sanitizer.lua cuda-host true'):format(folder, folder))),
        expected)
    end
  end)

  it('says in a sentence what is wrong', function()
    local out, status = check 'devce=cuda'
    assert.equal(1, status)
    assert.equal("tycho: expected device=, out=, seconds= or sections=, got 'devce=cuda'\n", out)
    out, status = check 'device=cpu'
    assert.equal(1, status)
    assert.equal('tycho: device=cpu: expected a device other than the CPU\n', out)
  end)
end)
