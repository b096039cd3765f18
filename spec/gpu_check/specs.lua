-- What the specs have for a device: ./tycho spec/gpu_check/specs.lua DEVICE BUSTED. One row a file.
local lfs = require 'lfs'
local only_on = require 'spec.gpu_check.only_on'
local row = require 'spec.gpu_check.row'
local device, busted = unpack(arg)

local names = {}
for name in lfs.dir 'spec' do
  local file = name:match '_spec%.lua$' and io.open('spec/' .. name)
  if file then
    if file:read '*a' :find('on_each_device', 1, true) then names[#names + 1] = name end
    file:close()
  end
end
table.sort(names)
for _, name in ipairs(names) do
  local pipe = io.popen(('%s %s -o spec/output.lua spec/%s 2>&1'):format(busted, only_on(device), name))
  local text = pipe:read '*a'
  pipe:close()
  local passed, failed, skipped = text:match '(%d+) passed, (%d+) failed, (%d+) skipped'
  row { file = name, passed = tonumber(passed) or 0, failed = tonumber(failed) or 0, skipped = tonumber(skipped) or 0,
    ok = passed ~= nil and failed == '0' and skipped == '0' }
  if failed ~= '0' then print(text) end
end
