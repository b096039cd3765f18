-- Runs that are killed, stopped, started twice, or out of luck: what is on disk is whole, and a resumed run equals an uninterrupted one.
local lfs = require 'lfs'
local tycho = require 'tycho'
local file = require 'tycho.io.file'
local read_runs = require 'tycho.runs.read'
local run_directory = require 'tycho.train.run'
local failure = require 'spec.failure'
local files = require 'spec.files'
local says = require 'spec.says'
local shell = require 'spec.shell'

local folder = files.folder()
local read, write = files.read, files.write

local here = lfs.currentdir()
local main = here .. '/experiments/main.lua'
local small = 'data_dir=data resolution=16 width=2 projection_dim=16 n_embd=8 n_layer=1 n_head=2 block_size=4 batch_size=5 epochs=5 warmup_epochs=1 '
  .. 'learning_rate=0.03 temperature=0.1 random_mask=True mask_prob=0.5 log_interval=2 save_interval=4 checkpoint_minutes=0 '

-- ./tycho in the spec's folder; before: shell text in front of it. Returns what it printed and its exit status.
local function launch(arguments, before)
  return shell(('%s env OMP_NUM_THREADS=1 %s/tycho %s'):format(before or '', here, arguments), folder)
end
local function train(arguments, before) return launch(main .. ' ' .. small .. arguments, before) end

-- A script that sends itself a signal at the count-th event of a kind, then the training itself.
local saboteur = [[
local kind, count, signal = %q, %d, %d
local ffi = require 'ffi'
ffi.cdef 'int kill(int pid, int signal);'
local file = require 'tycho.io.file'
local function happens(what)
  if what ~= kind then return end
  count = count - 1
  if count == 0 then ffi.C.kill(ffi.C.getpid(), signal) end
end
-- Inside a file that is being written, before it gets its name, and after.
local whole_write, rename = file.write, os.rename
function file.write(path, content)
  whole_write(path, function(out)
    local part = out.write
    out.write = function(...)
      happens 'part'
      return part(...)
    end
    if type(content) == 'string' then out:write(content) else content(out) end
    happens 'file'
  end)
end
function os.rename(...)
  happens 'name'
  local ok, why = rename(...)
  happens 'named'
  return ok, why
end
-- In the middle of a line of metrics.
local append = file.append
function file.append(path, text)
  if kind == 'line' then
    append(path, text:sub(1, math.floor(#text / 2)))
    happens 'line'
    append(path, text:sub(math.floor(#text / 2) + 1))
  else
    append(path, text)
  end
end
local training = require 'experiments.contextssl.training'
local losses = training.policies.losses
function training.policies.losses(...)
  happens 'step'
  return losses(...)
end
local context = require 'experiments.contextssl.context'
local encode = context.encode
function context.encode(...)
  happens 'evaluation'
  return encode(...)
end
dofile(%q)
]]
local function sabotaged(arguments, kind, count, signal, behind)
  write(folder .. '/saboteur.lua', saboteur:format(kind, count, signal, main))
  return launch('saboteur.lua ' .. small .. arguments .. ' ' .. (behind or ''))
end

local results = { 'checkpoint.safetensors', 'metrics.jsonl', 'metrics.csv', 'simclr_resnet18_epoch4.pt', 'simclr_resnet18_epoch5.pt' }
local function assert_equals_whole(name)
  for _, result in ipairs(results) do
    assert(read(('%s/%s/%s'):format(folder, name, result)) == read(folder .. '/whole/' .. result), result .. ' differs')
  end
  assert.equal('', (shell(("find '%s' -name '*.tmp'"):format(name), folder)))
end

describe('a run', function()
  setup(function()
    local out, status = launch(here .. '/experiments/toy3d.lua out=data objects=10 val_objects=3 views=3 size=16 classes=2')
    assert(status == 0, out)
    out, status = train 'run_dir=whole'
    assert(status == 0, out)
  end)

  it('that is killed again and again, while writing too, ends as if it had not been', function()
    local g = tycho.generator(5)
    local killed = select(2, sabotaged('run_dir=killed resume=auto', 'file', 1 + g:integer(8), 9)) == 137 and 1 or 0 -- the directory is being made
    for _, kind in ipairs { 'part', 'step', 'name', 'line', 'evaluation', 'part' } do
      local count = kind == 'part' and 1 + g:integer(1200) or 1 + g:integer(2)
      local _, status = sabotaged('run_dir=killed resume=auto', kind, count, 9)
      if status == 137 then killed = killed + 1 end
    end
    assert.equal(7, killed)
    local out, status = train 'run_dir=killed resume=auto'
    assert(status == 0, out)
    assert_equals_whole 'killed'
  end)

  for name, stop in pairs { SIGTERM = { 'step', 5, 15 }, SIGHUP = { 'step', 4, 1 }, ['Ctrl-C during the evaluation'] = { 'evaluation', 3, 2 },
    ['Ctrl-C'] = { 'step', 3, 2 } } do
    it('saves at ' .. name .. ' and says how to go on', function()
      local directory = 'stopped_' .. stop[1] .. stop[2]
      local out, status = sabotaged('run_dir=' .. directory, unpack(stop))
      assert.equal(130, status)
      local command = out:match 'go on with: %S+/tycho (saboteur.lua resume=%S+)\n'
      assert.equal('saboteur.lua resume=' .. directory, command)
      write(folder .. '/saboteur.lua', saboteur:format('never', 1, 9, main))
      out, status = launch(command)
      assert(status == 0, out)
      assert_equals_whole(directory)
    end)
  end

  it('says how to go on in words that the shell takes as they are', function()
    local out = sabotaged([['run_dir=it is 100$ a run']], 'step', 3, 2)
    local command = out:match 'go on with: %S+/tycho (saboteur.lua [^\n]+)\n'
    write(folder .. '/saboteur.lua', saboteur:format('never', 1, 9, main))
    launch(command)
    assert_equals_whole 'it is 100$ a run'
  end)

  it('saves at Ctrl-C when nobody reads any more what it says', function()
    sabotaged('run_dir=unread checkpoint_minutes=100', 'step', 5, 2, '2>&1 | head -n 1')
    says(read(folder .. '/unread/status.json'), '"stopped"')
    local out, status = train 'resume=unread'
    assert(status == 0, out)
    assert_equals_whole 'unread'
  end)

  it('belongs to one process at a time', function()
    local run = run_directory.open(folder .. '/whole')
    run:take()
    local out, status = train 'resume=whole'
    run:release()
    assert.equal(1, status)
    says(out, 'tycho: whole is in use: another process trains this run')
    assert.equal(0, select(2, train 'resume=whole'))
    -- Who asks whether it is in use has the lock for a moment; what the process started does not keep it.
    os.execute(('flock %s/whole/lock sleep 0.3 & sleep 0.1'):format(folder))
    run:take()
    os.execute 'sleep 2 >/dev/null 2>&1 &'
    run:release()
    assert.is_false(read_runs.is_in_use(run.path))
  end)

  it('is made by one process alone', function()
    local path = folder .. '/raced'
    lfs.mkdir(path)
    local lock = file.lock(path .. '/lock')
    assert.matches('raced is in use: another process', failure(run_directory.create, folder, 'spec', { config = 'a: 1\n', path = path }))
    assert(lfs.attributes(path))
    lock:close()
    local run = run_directory.create(folder, 'spec', { config = 'a: 1\n', path = path })
    assert.is_true(read_runs.is_in_use(path))
    run:release()
    assert.matches('this exists already', failure(run_directory.create, folder, 'spec', { config = 'a: 2\n', path = path }))
    assert.equal('a: 1\n', read(path .. '/config.yml'))
    assert.is_false(read_runs.is_in_use(path))
  end)

  it('keeps its last state when the disk is full', function()
    local _, status = sabotaged('run_dir=full', 'step', 3, 15)
    assert.equal(130, status)
    local before = read(folder .. '/full/checkpoint.safetensors')
    -- Files may grow to this many 512-byte blocks, less than a training state.
    local out
    out, status = train('resume=full', 'ulimit -f 100;')
    assert.equal(1, status)
    says(out, 'tycho: full/checkpoint.safetensors: cannot write: File too large', 'the state after step 3 is kept; go on from there with: ')
    assert(read(folder .. '/full/checkpoint.safetensors') == before)
    out, status = train 'resume=full'
    assert(status == 0, out)
    assert_equals_whole 'full'
  end)

  it('stops when the loss is no number, and keeps the state before', function()
    local out, status = train 'run_dir=nan learning_rate=1e30'
    assert.equal(1, status)
    says(out, 'tycho: the loss or a weight is not a finite number after step 3', 'the state after step 2 is kept')
    assert(require('tycho.io.safetensors').load(folder .. '/nan/checkpoint.safetensors'))
  end)

  it('goes on by the command that began it, keys of its own included', function()
    for epochs = 1, 2 do
      local out, status = train(('run_dir=own resume=auto epochs=%d +note=7'):format(epochs))
      assert(status == 0, out)
    end
    local out, status = train 'run_dir=own resume=auto epochs=2 +note=8'
    assert.equal(1, status)
    says(out, 'note is 7 in that run; 8 (the command line) would give other numbers')
  end)

  it('goes on without what is damaged of its metrics and versions, and says what is in their place', function()
    os.execute(('cp -r %s/stopped_step3 %s/damaged'):format(folder, folder))
    write(folder .. '/damaged/metrics.jsonl', '5\n[1]\n{"iteration":"two"}\nnull\n' .. read(folder .. '/whole/metrics.jsonl'))
    write(folder .. '/damaged/versions.json', read(folder .. '/whole/versions.json'):sub(1, 20))
    lfs.mkdir(folder .. '/damaged/a_folder.tfevents')
    os.execute(('cp -r %s/damaged %s/foldered'):format(folder, folder))
    local out, status = train 'resume=damaged'
    assert(status == 0, out)
    os.remove(folder .. '/damaged/a_folder.tfevents')
    assert_equals_whole 'damaged'
    assert.equal(read(folder .. '/whole/versions.json'), read(folder .. '/damaged/versions.json'))
    os.remove(folder .. '/foldered/metrics.jsonl')
    lfs.mkdir(folder .. '/foldered/metrics.jsonl')
    out, status = train 'resume=foldered'
    assert.equal(1, status)
    says(out, 'tycho: cannot write foldered/metrics.jsonl: it is a directory, not a file')
  end)

  it('that has lost its state does not begin anew', function()
    os.execute(('cp -r %s/whole %s/lost && rm %s/lost/checkpoint.safetensors'):format(folder, folder, folder))
    local before = read(folder .. '/lost/metrics.jsonl')
    local out, status = train 'resume=lost'
    assert.equal(1, status)
    says(out, 'tycho: lost/checkpoint.safetensors is missing, the state in which the run ended after step 10; put it back, or start a new run')
    assert.equal(before, read(folder .. '/lost/metrics.jsonl'))
  end)

  it('that is finished goes on for more epochs only', function()
    local before = read(folder .. '/whole/checkpoint.safetensors')
    local out, status = train 'resume=whole'
    assert.equal(0, status)
    says(out, 'whole has done all its 5 epochs; epochs=N goes on for longer')
    assert(read(folder .. '/whole/checkpoint.safetensors') == before)
    out, status = train 'resume=whole epochs=3'
    assert.equal(1, status)
    says(out, 'tycho: whole has done 5 epochs already, more than epochs=3')
    os.execute(('cp -r %s/whole %s/longer'):format(folder, folder))
    out, status = train 'resume=longer epochs=6'
    assert.equal(0, status)
    says(out, 'epochs was 5 and is 6 now', 'longer: step 10 of 12')
    says(read(folder .. '/longer/config.yml'), 'epochs: 6')
  end)

  it('is refused other settings, other data and other names', function()
    for arguments, text in pairs {
      ['resume=whole seed=43'] = 'tycho: resume=whole: seed is 42 in that run; 43 (the command line) would give other numbers',
      ['resume=whole env_ratio=[0,1,0]'] = 'tycho: resume=whole: env_ratio is [0.5, 0.5, 0] in that run',
      ['resume=whloe'] = 'tycho: resume=whloe: there is no such directory; expected the directory of a run, with config.yml in it; '
        .. 'did you mean ./whole?',
      ['resume=data'] = 'tycho: resume=data: this is no run; expected the directory of a run',
      ['run_dir=whole'] = 'tycho: run_dir=whole: this exists already',
    } do
      local out, status = train(arguments)
      assert.equal(1, status)
      says(out, text)
    end
    assert.equal(0, select(2, launch(here .. '/experiments/toy3d.lua out=other objects=11 val_objects=3 views=3 size=16 classes=2')))
    local out, status = train 'resume=whole data_dir=other'
    assert.equal(1, status)
    says(out, 'whole/checkpoint.safetensors was made on data with 10 objects, these have 11')
    says(read(folder .. '/whole/config.yml'), 'data_dir: ' .. folder .. '/data\n')
  end)

  it('holds what made it', function()
    for name, text in pairs { ['arguments.txt'] = 'mask_prob=0.5\n', ['versions.json'] = '"luajit"', ['train.log'] = 'epoch 5/5  loss ',
      ['scripts/experiments/main.lua'] = 'training.run', ['scripts/experiments/contextssl/context_mask.lua'] = 'function M.random_mask',
      ['config.yml'] = 'mask_prob: 0.5\n' } do
      says(read(folder .. '/whole/' .. name), text)
    end
    says(read(folder .. '/killed/scripts/saboteur.lua'), 'happens')
  end)

  it('says what is no more as it was when it began', function()
    assert(shell([[
      cp -r stopped_step3 edited; cp -r data changed
      echo >>edited/scripts/experiments/contextssl/objective.lua
      sed -i 's/"cpu": *"[a-z0-9]*"/"cpu":"neon"/; s/"device": *"cpu"/"device":"cuda: a GPU"/' edited/versions.json
      for image in changed/3DIEBench/*/*/image_0.jpg; do echo >>$image; done]], folder))
    local out = train 'resume=edited data_dir=changed'
    says(out, 'experiments/contextssl/objective.lua has another text now', 'cpu was neon and is ',
      'device was cuda: a GPU and is cpu now; from here the numbers may not be those of an uninterrupted run')
    assert.matches('\ndata was %x+ and is %x+ now; from here', out)
    assert(not train('resume=whole epochs=6'):find(' now; from here the numbers', 1, true))
  end)

  it('that cannot start leaves nothing behind', function()
    for _, arguments in ipairs { 'out=none env_ratio=[1,1,0]', 'out=none projection_dim=17', 'out=none data_dir=data/meta', 'out=none epochs=ten' } do
      assert.equal(1, select(2, train(arguments)))
      assert.is_nil(lfs.attributes(folder .. '/none'))
    end
    write(folder .. '/a_file', '')
    local out, status = train 'out=a_file'
    assert.equal(1, status)
    says(out, 'tycho: cannot make the run directory a_file/')
    assert(lfs.link('loop', folder .. '/loop', true))
    says(train 'run_dir=loop/run', 'tycho: cannot make the folder loop: it is a link that leads nowhere')
    says(launch(here .. '/experiments/toy3d.lua out=loop objects=1 val_objects=1 views=2 size=8 classes=1'),
      'tycho: loop exists and is no toy3d rendering')
  end)
end)
