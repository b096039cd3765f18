-- The benchmark against PyTorch on this machine: ./tycho spec/bench/run.lua [PATTERN ...] measures the rows whose names match, all by default.
-- Every row has one process of ours and one of PyTorch's (spec/bench/anchor.py, where python3 has torch and torchvision). They take turns: in
-- each round one side computes while the other waits for a line. Ratios are PyTorch's time through ours, medians over the rounds, PyTorch in
-- the better of its memory layouts, with as many threads as there are cores, an OpenBLAS that shares OpenMP's threads, and a malloc that keeps
-- its pages. Prints a table and writes build/bench.json; exit status 1 when a row misses its bound. Ends within 10 minutes.
local tycho = require 'tycho'
local programs = require 'spec.bench.programs'
local lib = tycho.lib

local SECONDS, MIN_ROUNDS, MAX_ROUNDS = 540, 5, 15
local REST = 'sleep 0.06' -- between turns: Linux stops real-time processes for 50 ms in every second that they fill
local root = lib.root

-- ---- what a row's work amounts to ----

-- Multiplications and additions of ResNet18 on count images, in GFLOP: {forward, backward}. The first layer has no gradient of its input.
local function resnet_work(count, side)
  local stem = 2 * 49 * 3 * 64 * (side / 2) ^ 2
  local forward = stem
  local inputs, size = 64, side / 4
  for stage = 1, 4 do
    local channels = 64 * 2 ^ (stage - 1)
    if stage > 1 then size = size / 2 end
    forward = forward + 2 * size ^ 2 * channels * (9 * (inputs + 3 * channels) + (stage > 1 and inputs or 0))
    inputs = channels
  end
  return count * forward / 1e9, count * (2 * forward - stem) / 1e9
end
local function gpt_work(width, tokens)
  local weights = 518 * width + 3 * 12 * width ^ 2 + width * 512
  return 6 * tokens * weights / 1e9
end
local function resnet_step(count, side)
  local forward, backward = resnet_work(count, side)
  return forward + backward
end

-- ---- the rows ----

-- ours, torch: arguments of the two sides; images: PyTorch has two layouts. work: GFLOP of one measurement, or GB for memory-bound work.
-- unit: factor on seconds.
local MS, US = { 'ms', 1e3 }, { 'us', 1e6 }
local LAYOUTS = 'nchw,nhwc'
local PAIRS = 64
local rows = {
  { name = 'ResNet18 forward+backward, batch 32, 128x128', ours = 'resnet 32 128', images = true, at_least = 2.0, work = resnet_step(32, 128) },
  { name = 'ResNet18 forward+backward, batch 64, 128x128', ours = 'resnet 64 128', images = true, at_least = 2.1, work = resnet_step(64, 128) },
  { name = 'ResNet18 forward+backward, batch 32, 64x64', ours = 'resnet 32 64', images = true, at_least = 1.6, work = resnet_step(32, 64) },
  { name = 'ResNet18 forward+backward, batch 64, 64x64', ours = 'resnet 64 64', images = true, at_least = 1.6, work = resnet_step(64, 64) },
  { name = 'ResNet18 forward+backward, batch 32, 128x128, exact', ours = 'resnet 32 128 exact', images = true, torch = 'resnet 32 128',
    at_least = 1.7,
    work = resnet_step(32, 128) },
  { name = 'ResNet18 forward in eval mode, batch 32, 128x128', ours = 'resnet_forward 32 128', images = true,
    at_least = 1.8, work = (resnet_work(32, 128)) },
  { name = 'GPT predictor forward+backward, n_embd 512', ours = 'gpt 512', at_least = 1.05, work = gpt_work(512, 512) },
  { name = 'GPT predictor forward+backward, n_embd 2048', ours = 'gpt 2048', at_least = 1.05, work = gpt_work(2048, 512) },
  { name = ('ContextSSL training step, %d pairs, 128x128'):format(PAIRS), ours = 'contextssl ' .. PAIRS, images = true, at_least = 1.6,
    work = resnet_step(2 * PAIRS, 128) + gpt_work(2048, 2 * PAIRS) },
  { name = 'Adam on the 153 M parameters of the n_embd 2048 predictor', ours = 'adam 2048', at_least = 5, gigabytes = 28 * 0.1532 },
  { name = 'sum of two scalars, forward with tape', ours = 'tiny 0', at_least = 4, unit = US },
  { name = 'sum of two scalars, forward+backward', ours = 'tiny 1', at_least = 5, unit = US },
  { name = 'peak memory of ResNet18 forward+backward, batch 32, 128x128', ours = 'resnet 32 128', at_least = 1, memory = true },
}

-- ---- the two sides ----

local folder, real_time -- of the pipes; the scheduling
local Side = {}
Side.__index = Side

-- Starts a process and waits until it has warmed up; nil and its last line on stderr when it ends before.
function Side.start(command)
  local fifo, errors = folder .. '/answers', folder .. '/errors'
  os.remove(fifo)
  assert(os.execute(('mkfifo %s'):format(fifo)) == 0)
  local self = setmetatable({ to = io.popen(('exec %s >%s 2>%s'):format(command, fifo, errors), 'w') }, Side)
  self.to:setvbuf 'no'
  self.from = io.open(fifo, 'r')
  self.pid = (self.from:read '*l' or ''):match('^ready (%d+)$')
  if self.pid then return self end
  self:stop()
  local reason = 'it said nothing'
  for line in io.lines(errors) do reason = line end
  return nil, reason
end

function Side:ask(question)
  self.to:write(question, '\n')
  return tonumber(self.from:read '*l')
end

-- Seconds of processor time so far.
function Side:busy()
  local user, system = io.open(('/proc/%s/stat'):format(self.pid)):read('*a'):match('^.*%) %S' .. (' %-?%d+'):rep(10) .. ' (%d+) (%d+)')
  return (user + system) / 100
end

function Side:stop()
  self.to:close()
  self.from:close()
end

local function median(list)
  local sorted = { unpack(list) }
  table.sort(sorted)
  local n = #sorted
  return n % 2 == 1 and sorted[(n + 1) / 2] or (sorted[n / 2] + sorted[n / 2 + 1]) / 2
end
local function smallest(list) return math.min(unpack(list)) end
local function largest(list) return math.max(unpack(list)) end

-- ---- measuring a row ----

local function ratios(anchor, ours)
  local list = {}
  for i = 1, #ours do list[i] = anchor[i] / ours[i] end
  return list
end

local function ratio_of(result, lists, ours)
  for layout, times in pairs(lists) do
    local each = ratios(times, ours)
    if not result.ratio or median(each) < result.ratio then
      result.torch, result.layout = median(times), layout
      result.ratio, result.ratio_min, result.ratio_max = median(each), smallest(each), largest(each)
    end
  end
end

-- Largest resident size in MB after some steps, each side alone; PyTorch with the system's malloc as it is.
local function measure_memory(row, commands)
  local result, lists = {}, {}
  for _, side in ipairs(commands) do
    local process, reason = Side.start(side.memory_command)
    if not process then error(('%s: %s'):format(row.name, reason), 0) end
    process:ask(side.layout or 'go')
    local megabytes = process:ask 'memory' / 1024
    process:stop()
    if side.layout then lists[side.layout] = { megabytes } else result.ours = megabytes end
  end
  ratio_of(result, lists, { result.ours })
  return result
end

local function measure_time(row, commands, budget)
  local start = lib.cpu.ty_now()
  local sides = {}
  for i, side in ipairs(commands) do
    local reason
    sides[i], reason = Side.start(side.command)
    if not sides[i] then
      for k = 1, i - 1 do sides[k]:stop() end
      error(('%s: %s'):format(row.name, reason), 0)
    end
  end
  local ours, lists, idle, total = {}, {}, 0, 0
  local function turn(i, question)
    local other = sides[3 - i]
    local before, began = other and other:busy() or 0, lib.cpu.ty_now()
    local time = sides[i]:ask(question)
    idle, total = idle + (other and other:busy() or 0) - before, total + lib.cpu.ty_now() - began
    if real_time then os.execute(REST) end
    return time
  end
  local round = 0
  while round < MIN_ROUNDS or (round < MAX_ROUNDS and (lib.cpu.ty_now() - start) * (round + 1) / round < budget) do
    round = round + 1
    ours[round] = turn(1, 'go')
    if sides[2] then
      for layout in commands[2].layouts:gmatch '%w+' do
        lists[layout] = lists[layout] or {}
        lists[layout][round] = turn(2, layout)
      end
    end
  end
  for _, side in ipairs(sides) do side:stop() end
  local result = { ours = median(ours), ours_min = smallest(ours), ours_max = largest(ours), rounds = round, idle = idle / total }
  ratio_of(result, lists, ours)
  return result
end

-- ---- the table ----

local function in_unit(row, value)
  if not value then return '-' end
  return ('%.4g %s'):format(value * (row.memory and 1 or (row.unit or MS)[2]), row.memory and 'MB' or (row.unit or MS)[1])
end

local function print_row(row, r, fma, copy)
  local rate = ''
  if row.work then rate = ('%4.0f GFLOP/s, %3.0f %% of peak'):format(row.work / r.ours, 100 * row.work / r.ours / fma) end
  if row.gigabytes then rate = ('%4.1f GB/s, %3.0f %% of copying'):format(row.gigabytes / r.ours, 100 * row.gigabytes / r.ours / copy) end
  local spread = r.ratio and r.rounds and ('%.2f-%.2f'):format(r.ratio_min, r.ratio_max) or ''
  print(('%-60s %10s %10s %-4s %6s %-11s %8s %s  %s'):format(row.name, in_unit(row, r.ours), in_unit(row, r.torch), r.layout or '',
    r.ratio and ('%.2f'):format(r.ratio) or '-', spread, ('%.2f'):format(row.at_least), r.ratio and r.ratio < row.at_least and 'MISSED' or '      ',
    rate))
end

local function main(...)
  local patterns = { ... }
  local function wanted(row)
    for _, pattern in ipairs(patterns) do
      if row.name:find(pattern, 1, true) then return true end
    end
    return #patterns == 0
  end
  local start = lib.cpu.ty_now()
  folder = programs.output 'mktemp -d':match '%S+'
  local policy = io.open('/proc/self/sched'):read('*a'):match('policy%s*:%s*(%d+)')
  real_time = policy == '1'
  print(real_time and 'real-time scheduling (chrt): other work on this machine waits'
    or 'ordinary scheduling: other work on this machine disturbs the numbers')
  local fma, copy = programs.output(root .. '/build/peak'):match('(%S+) (%S+)')
  if not fma then error('build/peak is missing: run make bench', 0) end
  fma, copy = tonumber(fma), tonumber(copy)
  print(('peak of %d threads: %.0f GFLOP/s, copying %.1f GB/s'):format(tycho.threads(), fma, copy))
  local python, version = programs.find_torch()
  print(python and ('PyTorch %s (%s)'):format(version, python) or 'PyTorch: none (python3 has no torch and torchvision), its columns stay empty')
  local blas = programs.output(('ldd %s/build/libtycho-plain.so'):format(root)):match('libopenblas%S* => (%S+)/[^/]*%.so')
  print(('%-60s %10s %10s %-4s %6s %-11s %8s'):format('', 'ours', 'PyTorch', '', 'ratio', 'min-max', 'at least'))

  local chosen, results, missed, idle = {}, {}, 0, 0
  for _, row in ipairs(rows) do chosen[#chosen + 1] = wanted(row) and row or nil end
  for i, row in ipairs(chosen) do
    local ours = ('%s/tycho %s/spec/bench/ours.lua %s'):format(root, root, row.ours)
    local commands = { { command = ours, memory_command = ours } }
    if python then
      local function anchor(layouts, environment)
        return ('env LD_LIBRARY_PATH=%s %s %s %s/spec/bench/anchor.py %s %s'):format(blas, environment, python, root, layouts, row.torch or row.ours)
      end
      if row.memory then
        for layout in LAYOUTS:gmatch '%w+' do commands[#commands + 1] = { memory_command = anchor(layout, ''), layout = layout } end
      else
        local layouts = row.images and LAYOUTS or 'nchw'
        commands[2] = { command = anchor(layouts, 'MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000'), layouts = layouts }
      end
    end
    local budget = (SECONDS - (lib.cpu.ty_now() - start)) / (#chosen - i + 1)
    local result = row.memory and measure_memory(row, commands) or measure_time(row, commands, budget)
    print_row(row, result, fma, copy)
    io.stdout:flush()
    idle = math.max(idle, result.idle or 0)
    if result.ratio and result.ratio < row.at_least then missed = missed + 1 end
    local unit = row.memory and { 'MB', 1 } or row.unit or MS
    results[i] = { name = row.name, ours = result.ours * unit[2], torch = result.torch and result.torch * unit[2], unit = unit[1],
      ratio = result.ratio, ratio_min = result.ratio_min, ratio_max = result.ratio_max, at_least = row.at_least, rounds = result.rounds,
      layout = result.layout }
  end
  tycho.io.json.save(root .. '/build/bench.json', results)
  os.execute('rm -r ' .. folder)
  print(('%d rows in %.0f s, %d below their bound; the waiting side used at most %.1f %% of a core; build/bench.json'):format(
    #chosen, lib.cpu.ty_now() - start, missed, 100 * idle))
  return missed
end

os.exit(main(...) == 0 and 0 or 1)
