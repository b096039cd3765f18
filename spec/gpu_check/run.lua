-- Everything that only a GPU can show, in one command and under ten minutes: make gpu-check, or ./tycho spec/gpu_check/run.lua [device=cuda]
-- [out=spec/bench/results] [seconds=570] [sections=specs,golden,...] in a tree or in an unpacked bundle (make bundle). Each section is a process of
-- its own with a time limit: one that crashes or hangs is recorded, and the others go on. What is known so far is written after each section, to
-- OUT/<device>.json and .md. Exit status 1 when a check failed or a section did not end. device=cuda-host tries the program itself on the CPU, at
-- tiny sizes, and its times mean nothing.
--
-- A section's program prints what it found as lines '@ {...}' of JSON: objects of one row each; ok = false is a failure. The rest of its output is in
-- OUT/<device>.log, and its end, of a section that failed, in the .md too.
local lfs = require 'lfs'
local tycho = require 'tycho'
local file = require 'tycho.io.file'
local json = require 'tycho.io.json'
local tables = require 'tycho.table'
local programs = require 'spec.bench.programs'

local root = tycho.lib.root
local settings = { device = 'cuda', out = root .. '/spec/bench/results', seconds = '570', sections = '' }
for _, argument in ipairs(arg) do
  local key, value = argument:match '^(%w+)=(.*)$'
  if not settings[key] then error(("expected device=, out=, seconds= or sections=, got '%s'"):format(argument), 0) end
  settings[key] = value
end
if not tonumber(settings.seconds) then error(('seconds=%s: expected a number'):format(settings.seconds), 0) end
local problem = settings.device == 'cpu' and 'expected a device other than the CPU'
-- Asked in a process of its own: this one would hold memory of the device to the end.
local described = problem and '' or programs.output(([[cd %s && ./tycho -e "print(require('tycho.device').problem('%s') or 'it is '..]]
  .. [[require('tycho.device').describe('%s'))"]]):format(root, settings.device, settings.device))
local device_text = described:match '^it is (.*)$'
if not device_text then error(('device=%s: %s'):format(settings.device, problem or described), 0) end

local now = tycho.lib.cpu.ty_now
local start = now()

-- ---- the sections, in the order in which they are worth having ----

local tiny = settings.device ~= 'cuda'
local lua = ('%s/tycho %s/spec/gpu_check/'):format(root, root)
local busted = lfs.attributes(root .. '/specs.lua') and './tycho specs.lua' or 'busted'
local python, torch_version = programs.find_torch()
local sections = {
  { name = 'specs', title = 'Specs on the device', seconds = 150, command = ('%sspecs.lua %s "%s"'):format(lua, settings.device, busted) },
  { name = 'golden', title = "Training steps of the reference's code", seconds = tiny and 200 or 60,
    command = lua .. 'golden.lua ' .. settings.device },
  { name = 'step', title = 'The published training step', seconds = 120, command = ('%sstep.lua %s'):format(lua, settings.device) },
  { name = 'engines', title = "cuDNN's engines", seconds = 40, command = lua .. 'engines.lua ' .. settings.device },
  { name = 'torch', title = 'The same in PyTorch', seconds = 220, command = ('%s %s/spec/gpu_check/step.py'):format(python, root),
    missing = tiny and 'PyTorch is measured on a GPU only' or not python and 'no python3 has torch and torchvision (PYTHON names another)' or nil },
  { name = 'ops', title = 'Operations', seconds = 60, command = lua .. 'ops.lua ' .. settings.device },
  { name = 'curves', title = 'Loss in mixed precision and in float32 on the CPU', seconds = 60,
    command = lua .. 'curves.lua ' .. settings.device },
  { name = 'sanitizer', title = 'compute-sanitizer', seconds = 120, command = ('%ssanitizer.lua %s "%s"'):format(lua, settings.device, busted),
    missing = programs.output 'PATH=$PATH:/usr/local/cuda/bin command -v compute-sanitizer' == '' and 'compute-sanitizer is not installed' or nil },
}

-- ---- running one ----

-- Runs a section; returns {name, title, rows, status, seconds, log}. status: 'passed', 'failed', 'skipped: why'. whole: a file for all that it says.
local function run(section, whole)
  local result = { name = section.name, title = section.title, rows = {} }
  local left = tonumber(settings.seconds) - (now() - start)
  if section.missing or left < 10 then
    result.status = 'skipped: ' .. (section.missing or ('%g seconds were over'):format(settings.seconds))
    return result
  end
  local limit, begun = math.floor(math.min(section.seconds, left)), now()
  local pipe = io.popen(('cd %s && { timeout -k 5 %d %s; echo "@status $?"; } 2>&1 </dev/null'):format(root, limit, section.command))
  local log, status = {}, nil
  whole:write(('==== %s ====\n'):format(section.name))
  for line in pipe:lines() do
    status = line:match '^@status (%d+)$'
    if status then break end -- what the section left running would hold the pipe
    local is_row, row = pcall(json.decode, line:match '^@ (.*)$' or '')
    if is_row then
      result.rows[#result.rows + 1] = row
    else
      whole:write(line, '\n')
      whole:flush()
      log[#log + 1] = line
      if #log > 60 then table.remove(log, 1) end
    end
  end
  pipe:close()
  result.seconds = math.floor((now() - begun) * 10 + 0.5) / 10
  local failed = 0
  for _, row in ipairs(result.rows) do failed = failed + (row.ok == false and 1 or 0) end
  result.status = (status == '124' or status == '137') and ('failed: not done within %d seconds'):format(limit)
    or status ~= '0' and ('failed: it ended with status %s'):format(status or '?') or failed > 0 and ('failed: %d of its checks'):format(failed)
    or #result.rows == 0 and 'failed: it found nothing' or result.rows[1].unsupported and 'skipped: ' .. result.rows[1].unsupported or 'passed'
  if result.status:match '^failed' then result.log = table.concat(log, '\n') end
  return result
end

-- ---- what came of it ----

-- What is aimed at on an H200, from the rows of the two timing sections.
local OBJECTS, EPOCHS = 42000, 1000 -- of 3DIEBench's train split, two images of each an epoch
local function targets(results)
  local ours, torch = {}, {}
  for _, result in ipairs(results) do
    for _, row in ipairs(result.rows) do
      if result.name == 'step' then ours[row.mode] = row elseif result.name == 'torch' then torch[row.mode] = row end
    end
  end
  local function fastest(of, modes)
    local best
    for _, mode in ipairs(modes) do
      local row = of[mode]
      if row and row.images_per_second and (not best or row.images_per_second > best.images_per_second) then best = row end
    end
    return best
  end
  local best = fastest(ours, { 'fp16', 'fp16, captured', 'fp16, cudnn_benchmark', 'fp16, cudnn_benchmark, captured' })
  if tiny or not best then return nil end
  local rows = {}
  local function add(what, value, at_least, aim, less)
    local ok = value ~= nil and (less and value <= at_least or not less and value >= at_least)
    rows[#rows + 1] = { what = what, value = value or 'not measured', at_least = at_least, aim = aim, ok = ok }
  end
  local rate, rival = best.images_per_second, fastest(torch, { 'channels last, fused Adam', 'compiled', 'compiled, CUDA graphs' })
  local reference = fastest(torch, { 'eager' })
  add('images/s', rate, 40000, 60000)
  add("times the reference's code under eager AMP", reference and rate / reference.images_per_second, 2, 3)
  add('times the best PyTorch', rival and rate / rival.images_per_second, 1, 1.4)
  add('peak GB of memory without the data', best.held_gigabytes, 7.5, 6.3, true)
  add('minutes for 1000 epochs without evaluations, by arithmetic', EPOCHS * OBJECTS * 2 / rate / 60, 45, 25, true)
  return { name = 'targets', title = 'Targets', rows = rows, status = 'of an H200' }
end

local function columns_of(rows)
  local list, seen = {}, {}
  for _, name in ipairs { 'file', 'what', 'mode', 'name' } do
    for _, row in ipairs(rows) do
      if row[name] ~= nil and not seen[name] then list[#list + 1], seen[name] = name, true end
    end
  end
  local rest = {}
  for _, row in ipairs(rows) do
    for name in pairs(row) do
      if not seen[name] then rest[#rest + 1], seen[name] = name, true end
    end
  end
  table.sort(rest)
  for _, name in ipairs(rest) do list[#list + 1] = name end
  return list
end

local function markdown(environment, results)
  local out = { ('# %s\n'):format(environment.device) }
  for _, key in ipairs { 'versions', 'driver', 'host', 'python' } do out[#out + 1] = ('%s: %s  '):format(key, environment[key]) end
  for _, result in ipairs(results) do
    out[#out + 1] = ('\n## %s\n\n%s%s\n'):format(result.title, result.status, result.seconds and (', %g s'):format(result.seconds) or '')
    if #result.rows > 0 then out[#out + 1] = tables({ columns = columns_of(result.rows), rows = result.rows }):markdown() end
    if result.log then out[#out + 1] = '```\n' .. result.log .. '\n```\n' end
  end
  return table.concat(out, '\n')
end

-- ---- the check ----

local environment = {
  device = device_text, versions = ('Tycho %s, interface %d'):format(tycho.version, tycho.lib.cpu.ty_version()),
  driver = programs.output 'nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader | head -1',
  host = programs.output 'uname -srm; nproc' :gsub('\n', ', ') .. ' cores',
  python = python and ('PyTorch %s, CUDA %s'):format(torch_version, programs.output(python .. ' -c "import torch; print(torch.version.cuda)"'))
    or 'none',
}
local name = settings.device == 'cuda' and environment.device:match '^[^,]+':gsub('%W+', '_') or settings.device
file.make_folders(settings.out)
local path = ('%s/%s'):format(settings.out, name)
local results, failed, whole = {}, false, assert(io.open(path .. '.log', 'w'))
for _, section in ipairs(sections) do
  if settings.sections == '' or (',' .. settings.sections .. ','):find(',' .. section.name .. ',', 1, true) then
    io.write(('%-10s '):format(section.name))
    io.flush()
    local result = run(section, whole)
    results[#results + 1] = result
    failed = failed or result.status:match '^failed' ~= nil
    print(('%s%s'):format(result.status, result.seconds and ('  (%g s)'):format(result.seconds) or ''))
    local shown = { unpack(results) }
    local aims = targets(results)
    if aims then table.insert(shown, 1, aims) end
    file.write(path .. '.json', json.encode({ environment = environment, sections = shown }, { indent = true }) .. '\n')
    file.write(path .. '.md', markdown(environment, shown))
  end
end
print(('%s.json, .md and .log'):format(path))
os.exit(failed and 1 or 0)
