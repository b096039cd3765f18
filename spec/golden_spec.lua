-- The reference's own numbers, from the copies in spec/golden.
local lib = require 'tycho.lib'
local lfs = require 'lfs'

for _, folder in ipairs { 'ops', 'metrics', 'data', 'model', 'probe' } do
  describe('golden ' .. folder, function()
    it('agrees with the reference within the tolerances', function()
      local dir = lib.root .. '/spec/golden/' .. folder
      assert(lfs.attributes(dir), 'missing ' .. dir)
      local checks, misses = 0, {}
      require('spec.parity.' .. folder)(dir, function(name, err, tolerance, ok)
        checks = checks + 1
        if not ok then misses[#misses + 1] = ('%s: error %s, tolerance %g'):format(name, tostring(err), tolerance) end
      end)
      assert(checks > 10, 'only ' .. checks .. ' checks ran')
      assert(#misses == 0, ('%d of %d checks missed:\n%s'):format(#misses, checks, table.concat(misses, '\n', 1, math.min(#misses, 20))))
    end)
  end)
end
