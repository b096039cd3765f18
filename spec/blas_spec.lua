-- OpenBLAS is told which kernels to use where it would choose slower ones, unless the user has.
local ffi = require 'ffi'
local blas = require 'tycho.blas'
local lib = require 'tycho.lib'

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

  local function said(command)
    local pipe = io.popen(command:format(lib.root))
    local text = pipe:read '*a'
    pipe:close()
    return text
  end

  it('uses what the user names', function()
    if ffi.arch ~= 'x64' then return pending 'the names of cores are those of x86-64' end
    assert.matches('core Nehalem', said 'OPENBLAS_CORETYPE=Nehalem %s/tycho doctor', 1, true)
  end)

  it('leaves the environment to the programs started from here as it was', function()
    assert.equal('\n', said [[env -u OPENBLAS_CORETYPE %s/tycho -e 'local x = tycho.ones{2} os.execute("echo $OPENBLAS_CORETYPE")']])
  end)
end)
