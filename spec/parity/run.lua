-- Runs the golden checks on a folder laid out like the golden data: ./tycho spec/parity/run.lua DIR [ops metrics data model ptfiles probe]
-- One line a check: verdict, folder/check, error, tolerance. Exit status 1 on any miss, or when nothing was checked.
local lfs = require 'lfs'
local dir = arg[1]
if not dir or lfs.attributes(dir, 'mode') ~= 'directory' then
  error(('GOLDENS must name a folder of golden data, got %s'):format(dir and dir ~= '' and dir or 'nothing'), 0)
end

local asked = { unpack(arg, 2) }
local count = { passed = 0, failed = 0, skipped = 0 }
local function report(folder, check, err, tolerance, verdict)
  local name = check and folder .. '/' .. check or folder
  if verdict == 'skip' then
    count.skipped = count.skipped + 1
    print(('skip  %s: %s'):format(name, err))
  else
    local key = verdict and 'passed' or 'failed'
    count[key] = count[key] + 1
    local outcome = type(err) == 'number' and ('  error %.3g  tolerance %.3g'):format(err, tolerance) or ': ' .. err
    print((verdict and 'ok    ' or 'MISS  ') .. name .. outcome)
  end
end

local function run(folder)
  local path = dir .. '/' .. folder
  local known = package.searchpath('spec.parity.' .. folder, package.path)
  if lfs.attributes(path, 'mode') ~= 'directory' then
    return report(folder, nil, 'not in ' .. dir, 0, #asked == 0 and 'skip')
  elseif not known then
    return report(folder, nil, 'there are no checks for this folder', 0, false)
  end
  local checked = false
  local ok, message = pcall(require('spec.parity.' .. folder), path, function(check, err, tolerance, verdict)
    checked = checked or verdict ~= 'skip'
    report(folder, check, err, tolerance, verdict)
  end)
  if not ok then report(folder, nil, tostring(message), 0, false) end
  if ok and not checked then report(folder, nil, 'no check could be made', 0, false) end
end

local folders = { 'ops', 'metrics', 'data', 'model', 'ptfiles', 'probe' }
if #asked == 0 then
  local others = {}
  for name in lfs.dir(dir) do
    if name:match('^[^.]') and lfs.attributes(dir .. '/' .. name, 'mode') == 'directory' then others[#others + 1] = name end
  end
  table.sort(others)
  local listed = ' ' .. table.concat(folders, ' ') .. ' '
  for _, name in ipairs(others) do
    if not listed:find(' ' .. name .. ' ', 1, true) then report(name, nil, 'there are no checks for this folder', 0, 'skip') end
  end
end
for _, folder in ipairs(#asked > 0 and asked or folders) do run(folder) end
print(('%d passed, %d failed, %d skipped'):format(count.passed, count.failed, count.skipped))
os.exit(count.failed == 0 and count.passed > 0 and 0 or 1)
