-- Sweeps: the grammar of values, the jobs that follow from it, and real processes that finish, fail, are stopped and go on.
local lfs = require 'lfs'
local tycho = require 'tycho'
local plan = require 'tycho.sweep.plan'
local sweep = require 'tycho.sweep'
local values = require 'tycho.sweep.values'
local failure = require 'spec.failure'
local files = require 'spec.files'
local outcome = require 'spec.outcome'
local says = require 'spec.says'
local shell = require 'spec.shell'
local stderr_to = require 'spec.stderr_to'

local folder = files.folder()

local write, read = files.inside(folder)
-- Runs a sweep from Lua; returns it and what it said.
local function run(options)
  local result = stderr_to(folder .. '/stderr', sweep.run, options)
  return result, read 'stderr'
end

local tiny = table.concat({ 'data_dir=%s/toy', 'out=%s/runs', 'width=2', 'projection_dim=16', 'n_embd=8', 'n_head=2', 'n_layer=1', 'block_size=4',
  'batch_size=4', 'resolution=16', 'classes=2', 'workers=0', 'log_interval=1000' }, ' '):gsub('%%s', folder)

-- A job that writes its metrics as a run does: value = x + seed; x=9 fails, x=8 is killed.
local script = write('job.lua', [[
  local given = {}
  for _, argument in ipairs(arg) do given[argument:match('^[^=]*')] = argument:match('=(.*)$') end
  if given.x == '9' then
    print 'about to fail'
    error('x is nine', 0)
  end
  if given.x == '8' then os.execute('kill -9 $PPID') end
  assert(require('lfs').mkdir(given.run_dir))
  local file = assert(io.open(given.run_dir .. '/metrics.jsonl', 'w'))
  file:write(('{"epoch":1,"value":%g}\n'):format(given.x + given.seed))
  file:close()
]])

describe('values of a sweep', function()
  it('are lists, ranges with their end, Hydra\'s ranges, and draws', function()
    local cases = {
      ['a,b , c'] = { 'a', 'b', 'c' },
      ['[1,0,0],[0,1,0]'] = { '[1,0,0]', '[0,1,0]' },
      ['"x,y",z'] = { '"x,y"', 'z' },
      ['{a:1,b:2},3'] = { '{a:1,b:2}', '3' },
      ['choice(1,2)'] = { '1', '2' },
      ['1:4'] = { '1', '2', '3', '4' },
      ['4:2'] = { '4', '3', '2' },
      ['0.1:0.3:0.1'] = { '0.1', '0.2', '0.3' },
      ['0:1:0.4'] = { '0', '0.4', '0.8' },
      ['0.2:0:-0.1'] = { '0.2', '0.1', '0' },
      ['-0.1:0.1:0.1'] = { '-0.1', '0', '0.1' },
      ['10000000000:10000000001'] = { '10000000000', '10000000001' },
      ['1e-5:3e-5:1e-5'] = { '1e-05', '2e-05', '3e-05' },
      ['range(3)'] = { '0', '1', '2' },
      ['range(0,5,2)'] = { '0', '2', '4' },
      ['range(0,4,2)'] = { '0', '2' },
    }
    for text, expected in pairs(cases) do assert.same(expected, values.read('key', text), text) end
    for _, text in ipairs { 'x', '0.5', '[1,2]', '"a,b"', 'a:b', '${oc.env:HOME}', 'a\\,b' } do assert.is_nil(values.read('key', text), text) end
    local log = values.read('key', 'log(1e-4,1)')
    assert.equal('0.01', log.draw(0.5))
    assert.equal('2.5', values.read('key', 'interval(2,3)').draw(0.5))
  end)
  it('are refused when they make no sense', function()
    for text, message in pairs {
      ['1:x'] = "'x' is not a number", ['1:5:0'] = 'bad range', ['1:5:-1'] = 'bad range', ['1:2:3:4'] = 'bad range', ['0:1:1e-9'] = 'more than 10000',
      ['a,,b'] = 'empty value', ['a,'] = 'empty value', ['1,2,1'] = '1 is there twice', ['range(5,5)'] = 'holds no number',
      ['range(1,2,3,4)'] = 'a range is', ['log(0,1)'] = 'both above 0', ['interval(2,1)'] = 'low < high', ['range(a)'] = "'a' is not a number",
    } do
      local ok, found = pcall(values.read, 'key', text)
      assert(not ok and found:find(message, 1, true) and found:find('key=' .. text, 1, true), text .. ': ' .. tostring(found))
    end
  end)
end)

describe('the jobs of a sweep', function()
  local function jobs(...) return plan.jobs(plan.read { ... }) end
  local function arguments(list)
    local out = {}
    for i, job in ipairs(list) do out[i] = table.concat(job.arguments, ' ') end
    return out
  end
  it('are the product of the axes, each with its seeds', function()
    assert.same({ 'e=3 a=1 b=x', 'e=3 a=1 b=y', 'e=3 a=2 b=x', 'e=3 a=2 b=y' }, arguments(jobs('-m', 'a=1,2', 'e=3', 'b=x,y')))
    assert.same({ 'a=1 seed=0', 'a=1 seed=1', 'a=2 seed=0', 'a=2 seed=1' }, arguments(jobs('a=1,2', 'seeds=2')))
    assert.same({ 'seed=7 seed=7', 'seed=7 seed=8' }, arguments(jobs('seed=7', 'seeds=2')))
    assert.same({ 'seed=1764243782123456 seed=1764243782123456', 'seed=1764243782123456 seed=1764243782123457' },
      arguments(jobs('seed=1764243782123456', 'seeds=2')))
    assert.same({ '+a=1', '+a=2' }, arguments(jobs '+a=1,2'))
    assert.same({ 'only' }, { jobs('e=3')[1].name })
  end)
  it('move together where they are zipped, and are drawn alike each time', function()
    assert.same({ 'a=1 b=3 c=x', 'a=1 b=3 c=y', 'a=2 b=4 c=x', 'a=2 b=4 c=y' }, arguments(jobs('a=1,2', 'c=x,y', 'b=3,4', 'zip=a,b')))
    local first = arguments(jobs('lr=log(1e-4,1)', 'm=1:100', 'sample=20'))
    assert.equal(20, #first)
    assert.same(first, arguments(jobs('lr=log(1e-4,1)', 'm=1:100', 'sample=20')))
    local low, high = math.huge, 0
    for _, text in ipairs(first) do
      local lr, m = tonumber(text:match('lr=(%S+)')), tonumber(text:match('m=(%S+)'))
      assert(lr >= 1e-4 and lr < 1 and m >= 1 and m <= 100 and m % 1 == 0)
      low, high = math.min(low, lr), math.max(high, lr)
    end
    assert(low < 0.01 and high > 0.05)
  end)
  it('have names that folders can have, all different', function()
    local seen = {}
    for _, job in ipairs(jobs('a=[1,0],[10],[1\\,0],x/y', 'b=' .. ('z'):rep(200) .. ',' .. ('z'):rep(201))) do
      assert(not seen[job.name] and #job.name < 140 and not job.name:find('[/%s%[]'), job.name)
      seen[job.name] = true
    end
  end)
  it('are refused in one sentence', function()
    for message, list in pairs {
      ['zip: b is not varied'] = { 'a=1,2', 'b=3', 'zip=a,b' }, ['a has 2 values and b has 3'] = { 'a=1,2', 'b=1,2,3', 'zip=a,b' },
      ["did you mean 'momentum'?"] = { 'a=1,2', 'momentum=1,2', 'zip=a,momentun' }, ['say how many points, sample=N'] = { 'a=interval(0,1)' },
      ['seeds must be a whole number >= 1'] = { 'seeds=0' }, ['jobs must be a whole number >= 1'] = { 'jobs=x' },
      ['varied twice'] = { 'a=1,2', 'a=3,4' },
      ['run_dir=x: it is for one run; sweep_dir=DIR says where a sweep lives, and goes on with it'] = { 'a=1,2', 'run_dir=x' },
      ['resume=auto: it is for one run'] = { 'a=1,2', 'resume=auto' },
      ['leave out one of them'] = { 'seeds=2', 'seed=1,2' },
      ['more than 10000'] = { 'a=1:2000', 'b=1:2000' },
    } do
      local ok, found = pcall(jobs, unpack(list))
      assert(not ok and found:find(message, 1, true), tostring(found))
    end
  end)
end)

describe('a sweep', function()

  it('runs every job, and its table has means and standard deviations', function()
    local result = run { script = script, vary = { x = { 1, 2 } }, seeds = 3, sweep_dir = folder .. '/plain' }
    assert.is_true(result.is_complete)
    -- x + seed for seeds 0, 1, 2: mean x + 1, deviation 1.
    for i, x in ipairs { 1, 2 } do assert.same({ x = tostring(x), runs = 3, value = { mean = x + 1, std = 1, n = 3 } }, result.table.rows[i]) end
    assert.equal('x  runs          value\n1     3  2.000 ± 1.000\n2     3  3.000 ± 1.000\n', read 'plain/table.txt')
    assert.equal('x,runs,value,value_std,value_n\n1,3,2,1,3\n2,3,3,1,3\n', read 'plain/table.csv')
    assert.equal('| x | runs | value |\n| ---: | ---: | ---: |\n| 1 | 3 | 2.000 ± 1.000 |\n| 2 | 3 | 3.000 ± 1.000 |\n', read 'plain/table.md')
    says(read 'plain/table.tex', '\\begin{tabular}{rrr}', '2 & $3$ & $3.000 \\pm 1.000$ \\\\', '\\end{tabular}')
    says(read 'plain/jobs.csv', 'job,status,x,seed,epoch,value\n', 'x=2_seed=1,finished,2,1,1,3\n')
  end)

  it('goes on after a job that dies, says how, and runs only what is not finished when it is called again', function()
    local options = { script = script, vary = { x = { 1, 8, 9, 2 } }, seeds = 1, jobs = 1, sweep_dir = folder .. '/failing' }
    local result, said = run(options)
    assert.is_false(result.is_complete)
    says(said, 'x=8 seed=0: failed after', '(signal 9)', 'x=9 seed=0: failed after', '(exit status 1)', '    about to fail', 'x is nine',
      '[4/4] x=2 seed=0: finished')
    assert.equal(2, #result.table.rows)
    os.execute(('sed -i "s/== .9./== 99/" %s'):format(script))
    result, said = run(options)
    says(said, '4 jobs, 2 of them finished before', 'x=9 seed=0: finished')
    assert(not said:find('x=1 seed=0', 1, true))
    assert.equal(3, #result.table.rows)
    options.fail_fast, options.sweep_dir = true, folder .. '/fast'
    options.vary.x = { 8, 1, 2 }
    result = run(options)
    assert.same({ 'failed', 'waiting', 'waiting' }, { result.rows[1].status, result.rows[2].status, result.rows[3].status })
  end)

  it('refuses a bad job before any starts', function()
    local function check(arguments) if arguments[1] == 'x=3' then error('x must not be 3', 0) end end
    local ok, message = pcall(run, { script = script, vary = { x = { 1, 3 } }, sweep_dir = folder .. '/refused', check = check })
    assert(not ok)
    says(message, 'job x=3: x must not be 3; no job was started')
    assert.is_nil(lfs.attributes(folder .. '/refused'))
    run { script = script, vary = { x = { 1, 2 } }, seeds = 1, sweep_dir = folder .. '/taken' }
    assert.error_matches(function() run { script = 'other.lua', vary = { x = { 1 } }, sweep_dir = folder .. '/taken' } end, 'holds a sweep of')
  end)

  it('takes its jobs with it when it is killed', function()
    local endless = write('endless.lua', ('local f = io.open(%q, "w") f:write(io.open("/proc/self/stat"):read("*n")) f:close() while true do end')
      :format(folder .. '/pid'))
    write('killed.lua', ('require("tycho").sweep.run { script = %q, sweep_dir = %q }'):format(endless, folder .. '/killed'))
    shell(('{ ./tycho %s/killed.lua 2>/dev/null & }; while [ ! -s %s/pid ]; do sleep 0.02; done; kill -9 $!'):format(folder, folder))
    local process = tonumber(read 'pid')
    local function runs()
      local file = io.open(('/proc/%d/stat'):format(process))
      local state = file and file:read('*a'):match('%) (%a)')
      if file then file:close() end
      return state and state ~= 'Z'
    end
    local deadline = tycho.lib.cpu.ty_now() + 2
    while runs() and tycho.lib.cpu.ty_now() < deadline do os.execute 'sleep 0.02' end
    local is_left = runs()
    os.execute(('kill -9 %d 2>/dev/null'):format(process))
    assert.is_false(is_left or false)
  end)
  it('says which option it does not know, and takes those of the command line as they are there', function()
    says(failure(sweep.run, { script = script, very = {} }), "sweep: unknown option 'very'; did you mean 'vary'?")
    says(failure(sweep.run, { vary = {} }), "sweep: expected script = 'FILE.lua', got nil")
    says(failure(sweep.run, { script = script, jobs = 1.5 }), 'jobs must be a whole number >= 1, of jobs at a time, got 1.5')
    local result = run { script = script, vary = { x = { 1 } }, seeds = 1, metrics = 'value,epoch', sweep_dir = folder .. '/words' }
    assert.same({ 'value', 'epoch' }, result.metrics)
  end)
  it('says that jobs had finished with other settings', function()
    local options = { script = script, vary = { x = { 1 } }, seeds = 1, fixed = { y = 1 }, sweep_dir = folder .. '/again' }
    run(options)
    options.fixed.y = 2
    says(select(2, run(options)), 'had finished with other settings (', 'y=1', ') and go on with these; choose another sweep_dir to run them anew')
  end)
  it('shares the cores among all jobs, however many are left to do', function()
    local options = { script = script, vary = { x = { 1, 2 } }, seeds = 1, jobs = 2, sweep_dir = folder .. '/left' }
    local first = run(options)
    local second = run(options)
    assert.same({ 2, first.threads, 0 }, { second.count, second.threads, second.pending })
  end)
  it('shares the cores among jobs', function()
    local cores = tycho.threads()
    local spy = write('spy.lua', [[
      local given = {}
      for _, argument in ipairs(arg) do given[argument:match('^[^=]*')] = argument:match('=(.*)$') end
      assert(require('lfs').mkdir(given.run_dir))
      local file = io.open(given.run_dir .. '/metrics.jsonl', 'w')
      file:write(('{"threads":%d}\n'):format(require('tycho').threads()))
      file:close()
    ]])
    for _, jobs in ipairs { 1, cores } do
      local result = run { script = spy, vary = { x = { 1, 2 } }, jobs = jobs, sweep_dir = folder .. '/spy' .. jobs }
      assert.equal(math.max(1, math.floor(cores / math.min(jobs, 2))), result.rows[1].threads)
    end
  end)
end)

describe('./tycho -m', function()
  setup(function()
    shell(('./tycho experiments/toy3d.lua out=%s/toy objects=8 val_objects=4 views=3 size=16 classes=2 workers=1'):format(folder))
  end)

  it('refuses unknown keys, bad values, bad ranges and absent data before any job starts', function()
    local function sweeps(text) return outcome(('./tycho -m experiments/main.lua %s sweep_dir=%s/none epochs=1 %s'):format(tiny, folder, text)) end
    says(sweeps 'mask_prb=0,1', "job mask_prb=0: unknown key 'mask_prb'; did you mean 'mask_prob'", 'no job was started', 'status 1')
    says(sweeps 'mask_prob=0,2', 'job mask_prob=2: mask_prob must be a number from 0 to 1, got 2', 'status 1')
    says(sweeps 'mask_prob=0:1:-1', 'a bad range', 'status 1')
    says(sweeps 'seed=1:1000000', 'tycho: seed=1:1000000: a bad range: it holds more than 10000 numbers\nstatus 1')
    says(sweeps 'data_dir=/nowhere,/none', 'job data_dir=/nowhere: data_dir=/nowhere: there is no such file', 'status 1')
    assert.is_nil(lfs.attributes(folder .. '/none'))
  end)

  it('shows what it would do', function()
    local out = outcome(('./tycho experiments/main.lua -m %s mask_prob=0,0.5 seeds=2 --dry-run'):format(tiny))
    says(out, 'mask_prob=0.5 seed=1', '4 jobs', 'nothing was started', 'status 0')
    assert.is_nil(lfs.attributes(folder .. '/runs'))
    out = shell(('./tycho experiments/main.lua -m %s mask_prob=0,0.5 threads=1 --dry-run'):format(tiny))
    says(out, ('%d at a time with'):format(math.min(2, tycho.threads())))
  end)

  it('says when its own list of jobs is damaged', function()
    lfs.mkdir(folder .. '/damaged')
    for _, text in ipairs { '{"script":', '[]', '{"script":"experiments/main.lua"}' } do
      write('damaged/jobs.json', text)
      says(outcome(('./tycho -m experiments/main.lua %s mask_prob=0,0.5 sweep_dir=%s/damaged'):format(tiny, folder)),
        'jobs.json is damaged; remove it', 'status 1')
    end
  end)

  it('trains, is stopped, and goes on to the numbers of an uninterrupted sweep', function()
    local command = './tycho experiments/main.lua -m %s epochs=100 seeds=2 jobs=2 metrics=loss sweep_dir=%s/%s checkpoint_minutes=100 '
      .. 'save_interval=1000'
    -- Stopped when both jobs have logged their first epoch, however slow the machine is.
    local out = shell(('{ %s 2>&1 & } ; for i in $(seq 1000); do [ -s %s/stopped/seed=0/metrics.jsonl ] && [ -s %s/stopped/seed=1/metrics.jsonl ] '
      .. '&& break; sleep 0.05; done; kill -TERM $!; wait $!'):format(command:format(tiny, folder, 'stopped'), folder, folder))
    says(out, 'stopping: 2 running jobs save their state', 'seed=0: stopped', 'the same command with sweep_dir=', 'goes on')
    says(read 'stopped/seed=0/status.json', '"stopped"')
    local whole = outcome(command:format(tiny, folder, 'whole'))
    says(whole, 'runs', 'status 0')
    out = outcome(command:format(tiny, folder, 'stopped'))
    says(out, '0 of them finished before', 'status 0')
    assert.equal(read 'whole/table.csv', read 'stopped/table.csv')
    assert.equal(read 'whole/seed=1/metrics.jsonl', read 'stopped/seed=1/metrics.jsonl')
    says(read 'whole/seed=1/status.json', '"finished"')
  end)
end)
