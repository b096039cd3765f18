-- ./tycho runs: what it lists, compares, draws, marks and removes; a thousand runs; damaged directories.
local ffi = require 'ffi'
local lfs = require 'lfs'
local lib = require 'tycho.lib'
local run_directory = require 'tycho.train.run'
local files = require 'spec.files'
local outcome = require 'spec.outcome'
local says = require 'spec.says'

local folder = files.folder()
local root = lib.root == '.' and lfs.currentdir() or lib.root

local write = files.inside(folder)
local function runs(arguments, out)
  return outcome(('%s/tycho runs %s --out %s'):format(root, arguments, out or 'runs'), folder)
end

-- A run below FOLDER/runs. losses: one for each epoch.
local function make(name, settings, losses, status)
  lfs.mkdir(folder .. '/runs')
  lfs.mkdir(folder .. '/runs/' .. name)
  local lines = {}
  for key, value in pairs(settings) do lines[#lines + 1] = ('%s: %s\n'):format(key, value) end
  write('runs/' .. name .. '/config.yml', table.concat(lines))
  local rows = {}
  for i, loss in ipairs(losses) do
    rows[i] = ('{"epoch":%d,"iteration":%d,"loss":%s,"rot_r2":%g}\n'):format(i, 10 * i, loss == loss and loss or '"nan"', i / 10)
  end
  write('runs/' .. name .. '/metrics.jsonl', table.concat(rows))
  if status then write('runs/' .. name .. '/status.json', ('{"status":"%s","message":"why it ended"}'):format(status)) end
end

describe('./tycho runs', function()
  before_each(function()
    os.execute('rm -rf ' .. folder .. '/*')
    make('a', { lr = 0.1, seed = 0 }, { 3, 2.5 }, 'finished')
    make('b', { lr = 0.1, seed = 1 }, { 3, 1.5, 0.5 }, 'failed')
    make('c', { lr = 0.01, seed = 0 }, { 9, 8 })
  end)

  it('ls lists, sorts and chooses', function()
    local out = runs 'ls'
    says(out, 'run  status    done   loss', 'a    finished     2  2.500', 'b    failed       3  0.500',
      'c    killed       2      8', 'status 0')
    assert(runs('ls --sort loss'):match('b .*a .*c '))
    assert(runs('ls --sort loss --max'):match('c .*a .*b '))
    out = runs '"ls" "loss<3" lr=0.1 --csv'
    says(out, 'run,status,done,loss,tags\n', 'a,finished,2,2.5,\n', 'b,failed,3,0.5,\n')
    assert(not out:find('c,killed', 1, true))
    says(runs 'ls status=failed --keys lr --metrics rot_r2,loss --md',
      '| run | status | done | lr | rot_r2 | loss | tags |', '| b | failed | 3 | 0.1 |')
    says(runs 'ls los=3', "no run has a metric or setting 'los'; did you mean 'loss'?", 'status 1')
    says(runs 'ls --srot loss', "unknown option '--srot'; did you mean '--sort'?", 'status 1')
    make('d', { ['"x.y"'] = 7 }, {})
    says(runs 'ls x.y=7 --keys x.y', 'd    killed')
    says(runs 'list', 'no command', 'status 1')
    says(runs('ls', 'nowhere'), 'there is no folder nowhere', 'status 1')
  end)

  it('best puts the lowest loss and the highest R2 first', function()
    assert(runs('best loss'):match('b .*a .*c '))
    assert(runs('best loss --max --count 1'):match('\nc '))
    assert(not runs('best rot_r2 --count 1'):find('\na '))
    assert(runs('best rot_r2 --count 1'):match('\nb '))
    for _, count in ipairs { 'x', '-1', '0', '1.5' } do
      says(runs('best loss --count ' .. count), '--count must be a whole number >= 1, got ' .. count, 'status 1')
    end
  end)

  it('show and diff say what is in the files', function()
    says(runs 'show b', 'failed, 3 epochs', 'ended by: why it ended', '\nloss       0.500\n', '\nlr      0.1\n')
    local out = runs 'diff a c --csv'
    says(out, 'name,a,c\nlr,0.1,0.01\n', 'name,a,c,change\nloss,2.5,8,5.5\n')
    assert(not out:find('seed', 1, true) and not out:find('rot_r2', 1, true))
    make('name', { lr = 5 }, { 7 })
    says(runs 'diff name a --csv', 'name,run runs/name,a\nlr,5,0.1\n', 'name,run runs/name,a,change\n', '\nloss,7,2.5,-4.5\n')
    os.execute(('mkdir %s/other; cp -r %s/runs/c %s/other/a'):format(folder, folder, folder))
    says(runs 'diff a other/a --csv', 'name,run runs/a,run other/a\nlr,0.1,0.01\n')
    write('runs/a/status.json', '{"status":"failed","message":[1]}')
    says(runs 'show a', 'runs/a: failed, 2 epochs', 'status 0')
    says(runs 'diff a', 'name two runs', 'status 1')
    says(runs 'show d', "no run 'd'", 'status 1')
  end)

  it('takes paths from any folder', function()
    lfs.mkdir(folder .. '/elsewhere')
    local function there(arguments) return outcome(('%s/tycho runs %s'):format(root, arguments), folder .. '/elsewhere') end
    says(there 'show ../runs/b', '../runs/b: failed, 3 epochs', 'status 0')
    says(there(('tag %s/runs/a/ good'):format(folder)), 'a: good\nstatus 0')
    says(there 'plot loss ../runs/a ../runs/b --file ../loss.svg', 'loss.svg\nstatus 0')
    says(there 'show b', 'there is no folder runs; --out=FOLDER names another', 'status 1')
    says(runs('show runs/b', 'elsewhere'), 'runs/b: failed, 3 epochs')
  end)

  it('table has means and deviations over runs that differ in their seed alone', function()
    -- a, b: 2.5 and 0.5: mean 1.5, deviation sqrt(2).
    says(runs 'table --csv', 'lr,runs,loss,loss_std,loss_n\n0.1,2,1.5,1.4142135623731,2\n0.01,1,8,,1\n')
    says(runs 'table --latex --group seed', '\\begin{tabular}{rrr}', '0 & $2$ & $5.250 \\pm 3.889$')
  end)

  it('plot draws over epochs, and says when there is nothing to draw', function()
    says(runs 'plot loss a b --file loss.svg', 'loss.svg\n', 'status 0')
    local svg = assert(io.open(folder .. '/loss.svg')):read('*a')
    says(svg, '>a</text>', '>b</text>', '>epoch</text>')
    says(runs 'plot loss a --file loss.txt', '--file must end in .svg or .png, got loss.txt', 'status 1')
    local drawn = runs 'plot loss a b'
    says(drawn, '\226\160\146 a\n', '\226\160\146 b\n', 'epoch', 'status 0')
    make('n', { lr = 1 }, { 0 / 0, 0 / 0 })
    says(runs 'plot loss n', "n: 'loss' is never a finite number", 'status 1')
    write('runs/n/metrics.jsonl', '[3]\n{"epoch":"nan","loss":1e308}\n{"epoch":-1e308,"loss":-1e308}\n{"epoch":{},"loss":2}\n')
    says(runs 'plot loss n', 'status 0')
    says(runs 'show n', '1 of 4 lines cannot be read', 'status 0')
    make('e', { lr = 1 }, {})
    says(runs 'plot loss e', "no run has a metric or setting 'loss'", 'status 1')
  end)

  it('tag marks runs, and takes marks away', function()
    says(runs 'tag', 'runs tag: name a run, and tags for it', 'status 1')
    says(runs 'tag a good paper', 'a: good paper')
    says(runs 'ls --tag good --csv', 'a,finished,2,2.5,good paper\n')
    assert(not runs('ls --tag good'):find('\nb '))
    says(runs 'tag a good --remove', 'a: paper')
    says(runs 'ls --tag good', 'no runs')
  end)

  it('rm asks, refuses a run in use, and removes nothing else', function()
    says(runs 'rm a', 'remove 1 run? [y/N]', 'nothing was removed', 'status 1')
    local run = run_directory.open(folder .. '/runs/b')
    run:take()
    says(runs 'rm a b --yes', 'b is in use', 'status 1')
    says(runs 'ls status=running --csv', 'b,running,')
    run:release()
    says(runs 'rm a b --yes', 'status 0')
    assert.is_nil(lfs.attributes(folder .. '/runs/a'))
    says(runs 'ls', 'c    killed')
    -- One that a process takes while the question waits stays.
    local out = outcome(('(sleep 0.3; flock runs/c/lock sleep 1 & sleep 0.1; echo y; wait) | %s/tycho runs rm c'):format(root), folder)
    says(out, 'c is in use', 'status 1')
    assert(lfs.attributes(folder .. '/runs/c/config.yml'))
    lfs.mkdir(folder .. '/precious')
    says(runs 'rm ../precious --yes', "no run '../precious'", 'status 1')
    assert(lfs.attributes(folder .. '/precious'))
  end)

  it('lists damaged runs with what is wrong, and stops at nothing', function()
    make('broken_line', { lr = 1 }, { 5 })
    write('runs/broken_line/metrics.jsonl', '{"epoch":1,"loss":5}\n{"epoch":2,"lo')
    make('broken_yaml', { lr = 1 }, { 5 })
    write('runs/broken_yaml/config.yml', 'a: [1\n\0\1')
    make('broken_status', { lr = 1 }, { 5 })
    write('runs/broken_status/status.json', '\255\0')
    lfs.mkdir(folder .. '/runs/20260101_000000_lost_12ab')
    lfs.mkdir(folder .. '/runs/folder')
    lfs.mkdir(folder .. '/runs/folder/inner')
    os.execute(('cp -r %s/runs/a %s/runs/folder/inner/run'):format(folder, folder))
    write('runs/.runs_index', 'not an index')
    for _ = 1, 2 do
      local out = runs 'ls'
      says(out, '1 of 2 lines cannot be read, the first is line 2', 'config.yml', 'status.json cannot be read',
        '20260101_000000_lost_12ab', 'there is no config.yml', 'folder/inner/run', '\na ', 'status 0')
    end
    says(runs 'show broken_yaml', 'problem: config.yml is not valid YAML')
    says(runs 'rm 20260101_000000_lost_12ab --yes', 'status 0')
  end)

  it('reads runs again where their index is damaged', function()
    runs 'ls'
    local text = files.read(folder .. '/runs/.runs_index')
    write('runs/.runs_index', (text:gsub('finished', 'finishes')))
    says(runs 'ls', 'a    finished')
  end)

  it('takes the one that trained last for the newest', function()
    for i, name in ipairs { '20260101_000000_x_0001', '20260102_000000_x_0002' } do
      make(name, { lr = i }, { i })
      write('runs/' .. name .. '/train.log', 'said\n')
      lfs.touch(('%s/runs/%s/config.yml'):format(folder, name), 1e9 + i)
      lfs.touch(('%s/runs/%s/train.log'):format(folder, name), 2e9 - i)
    end
    says(runs 'show last', '20260101_000000_x_0001: ')
    assert.equal(folder .. '/runs/20260101_000000_x_0001', run_directory.newest(folder .. '/runs', 'x'))
  end)

  it('sees a run that has changed since it was last listed', function()
    runs 'ls'
    make('a', { lr = 0.1, seed = 0 }, { 3, 2.5, 1.25 }, 'finished')
    says(runs 'ls', 'a    finished     3  1.250')
  end)

  it('finds metrics that early rows alone have, and lines that are damaged, where there is a table beside them', function()
    make('d', { lr = 0.1 }, { 3, 2, 1 }, 'finished')
    write('runs/d/metrics.jsonl', '{"epoch":1,"loss":3,"early":7.5}\n{"epoch":2,"lo\n{"epoch":3,"loss":1}\n{"epoch":4,"loss":0.5}\n')
    write('runs/d/metrics.csv', 'epoch,early,loss\n1,7.5,3\n')
    says(runs 'show d', 'finished, 3 epochs', 'metrics.jsonl: 1 of 4 lines cannot be read, the first is line 2', '\nearly  7.500\n',
      '\nloss   0.500\n')
  end)

  it('lists a thousand runs in under a second', function()
    local config = assert(io.open(root .. '/experiments/config.yml')):read('*a')
    os.execute(('mkdir %s/many'):format(folder))
    for i = 1, 1000 do
      local path = ('%s/many/run%04d'):format(folder, i)
      lfs.mkdir(path)
      write(('many/run%04d/config.yml'):format(i), config)
      write(('many/run%04d/metrics.jsonl'):format(i), ('{"epoch":1,"loss":%d}\n'):format(i))
      write(('many/run%04d/lock'):format(i), '')
    end
    runs('ls', 'many')
    -- Processor time of the process and its children: the machine may be busy with other things.
    ffi.cdef 'struct tycho_times { long user, system, child_user, child_system; }; long times(struct tycho_times *out);'
    local before, after = ffi.new('struct tycho_times'), ffi.new('struct tycho_times')
    ffi.C.times(before)
    local out = runs('ls --sort loss', 'many')
    ffi.C.times(after)
    local ticks = tonumber(after.child_user + after.child_system - before.child_user - before.child_system)
    assert(out:match('run0001.*run1000.*status 0'))
    assert(ticks < 100, ('%.2f s'):format(ticks / 100))
  end)
end)
