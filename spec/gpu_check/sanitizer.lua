-- Kernels under compute-sanitizer, on the small shapes of the specs, each tensor in a block of its own: ./tycho spec/gpu_check/sanitizer.lua DEVICE
-- BUSTED. One row a tool.
local lib = require 'tycho.lib'
local only_on = require 'spec.gpu_check.only_on'
local row = require 'spec.gpu_check.row'
local device, busted = unpack(arg)

-- What a call of CUDA returns is looked at by who made it, NVIDIA's libraries among them; races are looked for in our kernels alone.
for _, tool in ipairs { { 'memcheck', ' --report-api-errors no' }, { 'racecheck', [[ --kernel-name 'regex=^_Z[0-9]+k_']] } } do
  local name, options = unpack(tool)
  local start = lib.cpu.ty_now()
  local pipe = io.popen(('TYCHO_GUARD=1 PATH=$PATH:/usr/local/cuda/bin timeout -k 5 55 compute-sanitizer --tool %s --target-processes all '
    .. '--error-exitcode 9 %s %s -o spec/output.lua spec/device_spec.lua 2>&1; echo "status $?"'):format(name .. options, busted, only_on(device)))
  local text = pipe:read '*a'
  pipe:close()
  local status, found = text:match 'status (%d+)%s*$', 0
  -- A line that begins so is an error's first, but for the tool's name and the sum.
  for headline in text:gmatch '\n========= (%u[^\n]*)' do
    if not headline:find 'COMPUTE%-SANITIZER' and not headline:find 'SUMMARY' then found = found + 1 end
  end
  local is_whole = status == '0' and text:find ' SUMMARY: ' ~= nil
  if text:find('evice not supported', 1, true) then
    row { name = name, unsupported = 'compute-sanitizer does not support this device' }
  else
    row { name = name, errors = found, seconds = lib.cpu.ty_now() - start, whole = is_whole, ok = found == 0 and is_whole }
  end
  if status ~= '0' or found > 0 then print(text) end
end
