-- Runs the golden checks on a folder laid out like the golden data: ./tycho spec/parity/run.lua DIR [ops metrics data model ptfiles probe]
-- One line a check: verdict, name, error, tolerance. Exit status 1 on any miss.
local lfs = require 'lfs'
local dir = arg[1]
if not dir or lfs.attributes(dir, 'mode') ~= 'directory' then
  error(('GOLDENS must name a folder of golden data, got %s'):format(dir and dir ~= '' and dir or 'nothing'), 0)
end

local wanted = { unpack(arg, 2) }
if #wanted == 0 then wanted = { 'ops', 'metrics', 'data', 'model', 'ptfiles', 'probe' } end
local passed, missed = 0, 0
for _, name in ipairs(wanted) do
  local known = package.searchpath('spec.parity.' .. name, package.path)
  if lfs.attributes(dir .. '/' .. name, 'mode') ~= 'directory' then
    print(('skip  %s: not in %s'):format(name, dir))
  elseif not known then
    missed = missed + 1
    print(('MISS  %s: there are no checks for this folder'):format(name))
  else
    require('spec.parity.' .. name)(dir .. '/' .. name, function(check, err, tolerance, ok)
      if ok then passed = passed + 1 else missed = missed + 1 end
      local shown = type(err) == 'number' and ('%.3g'):format(err) or tostring(err)
      print(('%s  %s/%s  error %s  tolerance %.3g'):format(ok and 'ok  ' or 'MISS', name, check, shown, tolerance))
    end)
  end
end
print(('%d passed, %d failed'):format(passed, missed))
os.exit(missed == 0 and passed > 0 and 0 or 1)
