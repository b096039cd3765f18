-- OpenBLAS is told which kernels to use where it would choose slower ones, unless the user has.
local ffi = require 'ffi'
local blas = require 'tycho.blas'
local says = require 'spec.says'
local shell = require 'spec.shell'

local function cpuinfo(vendor, family, flags)
  return ('processor\t: 0\nvendor_id\t: %s\ncpu family\t: %d\nmodel\t\t: 17\nflags\t\t: fpu vme %s xtopology\n'):format(vendor, family, flags)
end

describe('OpenBLAS', function()
  it('is told to use the kernels for Zen on Zen 4 alone', function()
    assert.equal('Zen', blas.better_core(cpuinfo('AuthenticAMD', 25, 'avx2 avx512f avx512dq')))
    assert.is_nil(blas.better_core(cpuinfo('AuthenticAMD', 25, 'avx2'))) -- Zen 3, which it knows
    assert.is_nil(blas.better_core(cpuinfo('AuthenticAMD', 26, 'avx2 avx512f avx512dq'))) -- Zen 5 computes 512 bits at once
    assert.is_nil(blas.better_core(cpuinfo('GenuineIntel', 6, 'avx2 avx512f avx512dq')))
    assert.is_nil(blas.better_core '')
  end)

  it('uses what the user names', function()
    if ffi.arch ~= 'x64' then return pending 'the names of cores are those of x86-64' end
    says((shell 'OPENBLAS_CORETYPE=Nehalem ./tycho doctor'), 'core Nehalem')
  end)

  it('leaves the environment to the programs started from here as it was', function()
    assert.equal('\n', (shell [[env -u OPENBLAS_CORETYPE ./tycho -e 'local x = tycho.ones{2} os.execute("echo $OPENBLAS_CORETYPE")']]))
  end)
end)
