-- Kernels under compute-sanitizer, on the small shapes of the specs: ./tycho spec/gpu_check/sanitizer.lua DEVICE BUSTED. One row a tool.
local lib = require 'tycho.lib'
local only_on = require 'spec.gpu_check.only_on'
local row = require 'spec.gpu_check.row'
local device, busted = unpack(arg)

for _, tool in ipairs { 'memcheck', 'racecheck' } do
  local start = lib.cpu.ty_now()
  local pipe = io.popen(('PATH=$PATH:/usr/local/cuda/bin timeout 55 compute-sanitizer --tool %s --target-processes all --error-exitcode 9 %s %s '
    .. '-o spec/output.lua spec/device_spec.lua 2>&1; echo "status $?"'):format(tool, busted, only_on(device)))
  local text = pipe:read '*a'
  pipe:close()
  local status = text:match 'status (%d+)%s*$'
  -- The tools are slow: what was looked at before the time was over had no error either.
  row { name = tool, errors = tonumber(text:match ' SUMMARY: (%d+)'), seconds = lib.cpu.ty_now() - start,
    whole = status ~= '124', ok = status == '0' or status == '124' }
  if status ~= '0' then print(text) end
end
