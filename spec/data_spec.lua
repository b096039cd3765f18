-- Data sets on disk: threads that load files, trees with something missing or odd, packed files, and the same samples from all of them.
local ffi = require 'ffi'
local lfs = require 'lfs'
local tycho = require 'tycho'
local device = require 'tycho.device'
local lib = require 'tycho.lib'
local file = require 'tycho.io.file'
local hash = require 'tycho.hash'
local image = require 'tycho.io.image'
local loader = require 'tycho.data.loader'
local npy = require 'tycho.io.npy'
local pack = require 'tycho.data.pack'
local data = require 'experiments.contextssl.data'
local packing = require 'experiments.contextssl.packing'
local toy3d = require 'experiments.contextssl.toy3d'
local failure = require 'spec.failure'
local files = require 'spec.files'
local full_memory = require 'spec.full_memory'
local on_each_device = require 'spec.on_each_device'
local says = require 'spec.says'
local shell = require 'spec.shell'
local stderr_to = require 'spec.stderr_to'

local folder = files.folder()
local read, write = files.read, files.write
local toy = folder .. '/toy'

local function bytes(x) return ffi.string(x:ptr(), x:numel() * x.type.size) end

-- Calls fn and returns what it returns, and what it wrote to stderr.
local function listening(fn, ...)
  local result = stderr_to(folder .. '/stderr', fn, ...)
  return result, read(folder .. '/stderr')
end

local function open(dir, changes)
  local options = { data_dir = dir, split = 'train', resolution = 24, image_mean = { 0.3, 0.3, 0.3 }, image_std = { 0.2, 0.2, 0.2 } }
  for key, value in pairs(changes or {}) do options[key] = value end
  return data.open(options)
end

-- fn(...) must raise a message that contains every one of the texts.
local function refuses(texts, fn, ...)
  local message = failure(fn, ...)
  says(message, unpack(texts))
  return message
end

local function threads()
  local n = 0
  for name in lfs.dir('/proc/self/task') do
    if name:match('^%d+$') then n = n + 1 end
  end
  return n
end

setup(function()
  listening(toy3d.render, { out = toy, objects = 7, val_objects = 3, views = 4, size = 32, classes = 3, seed = 1 })
end)

describe('a loader', function()
  local paths
  setup(function()
    paths = {}
    local train = open(toy)
    for _, object in ipairs(train.objects) do
      for k = 0, 3 do paths[#paths + 1] = ('%s%s/image_%d.jpg'):format(train.root, object, k) end
    end
  end)
  local function load(threads_, rows)
    local y = tycho.zeros({ #paths, 8, 12, 3 }, 'u8')
    return loader.start({ paths = paths, into = y, rows = rows, threads = threads_ }):wait()
  end

  it('puts the same bytes into the same rows with any number of threads', function()
    local rows = tycho.generator(3):permutation(#paths)
    local y = load(0)
    for _, n in ipairs { 1, 2, 7, 100 } do assert.equal(bytes(y), bytes(load(n))) end
    local moved = load(2, rows)
    for i, row in ipairs(rows) do assert.equal(bytes(y[i - 1]), bytes(moved[row])) end
    assert.equal(bytes(image.resize(image.load(paths[5]), 8, 12)), bytes(y[4]))
  end)
  it('tells every error, in the order of the plan', function()
    local bad = { paths[1], folder .. '/b.jpg', paths[2], folder .. '/a.jpg' }
    for _, n in ipairs { 0, 2 } do
      local job = loader.start { paths = bad, into = tycho.empty({ 4, 8, 8, 3 }, 'u8'), threads = n }
      refuses({ folder .. '/b.jpg: No such file' }, job.wait, job)
      assert.is_nil(job:finish()[1])
      assert.truthy(job:finish()[4]:find(folder .. '/a.jpg', 1, true))
    end
  end)
  it('reads records that begin with the same head, and the sizes of images', function()
    local values = tycho.tensor({ { 1, 2, 3 }, { 4, 5, 6 } }, 'f64')
    local names = {}
    for i = 1, 3 do names[i] = ('%s/%d.npy'):format(folder, i) end
    npy.save(names[1], values[0])
    npy.save(names[2], values[1])
    npy.save(names[3], tycho.tensor { 1, 2, 3 })
    local y = tycho.zeros({ 3, 3 }, 'f64')
    local head = read(names[1]):sub(1, -25)
    local job = loader.start { paths = names, into = y, rows = { 2, 0, 1 }, head = head, threads = 2 }
    refuses({ names[3] .. ': expected an array of 3 numbers with the same header' }, job.wait, job)
    assert.same({ { 4, 5, 6 }, { 0, 0, 0 }, { 1, 2, 3 } }, y:tolist())
    local size = loader.start({ paths = { paths[1] }, into = tycho.empty({ 1 }, 'i64'), threads = 0 }):wait()
    assert.equal(lfs.attributes(paths[1], 'size'), size:item())
  end)
  it('refuses a plan that does not fit', function()
    local y = tycho.empty({ 2, 8, 8, 3 }, 'u8')
    refuses({ 'row 2 of file 0 is outside 0..1' }, loader.start, { paths = { paths[1] }, into = y, rows = { 2 }, threads = 1 })
    refuses({ 'at least 3 rows' }, loader.start, { paths = { 'a', 'b', 'c' }, into = y, threads = 1 })
  end)
  it('ends its threads when it is done, stopped or forgotten, and holds the memory until then', function()
    local many = {}
    for i = 1, 4000 do many[i] = paths[i % #paths + 1] end
    local function start(n) return loader.start { paths = many, into = tycho.empty({ #many, 48, 48, 3 }, 'u8'), threads = n } end
    tycho.collect()
    local before, live = threads(), tycho.memory().registered
    start(2):stop()
    assert.equal(before, threads())
    tycho.collect()
    local jobs = {} -- luacheck: ignore
    tycho.scope(function() jobs[1] = start(2) end) -- the scope ends with the job still at work
    assert.equal(live + 4000 * 48 * 48 * 3, tycho.memory().registered)
    jobs[1] = nil
    start(2)
    tycho.collect()
    assert.equal(before, threads())
    tycho.collect()
    assert.equal(live, tycho.memory().registered)
  end)
  it('ends with Ctrl-C at the prompt', function()
    local check, before = lib.check_interrupt, threads()
    local many = {}
    for i = 1, 40000 do many[i] = paths[i % #paths + 1] end
    local job = loader.start { paths = many, into = tycho.empty({ #many, 32, 32, 3 }, 'u8'), threads = 1 }
    lib.check_interrupt = function() error('interrupted', 0) end
    local ok, message = pcall(job.finish, job)
    lib.check_interrupt = check
    assert.is_false(ok)
    assert.equal('interrupted', message)
    assert.equal(before, threads())
    refuses({ 'this job was stopped before it had finished' }, job.wait, job)
  end)
end)

describe('a tree', function()
  local root, object
  before_each(function()
    root = folder .. '/bad'
    os.execute(('rm -rf %s; cp -r %s %s'):format(root, toy, root))
    object = open(toy).objects
    for i, name in ipairs(object) do object[i] = root .. '/3DIEBench' .. name end
  end)
  local function cut(path) write(path, read(path):sub(1, -30)) end
  local function relabel(labels) npy.save(root .. '/meta/train_labels.npy', tycho.tensor(labels, 'f64')) end

  it('with nothing wrong opens without a word', function()
    local dataset, said = listening(open, root)
    assert.equal('', said)
    assert.same({ 7, 4, 3 }, { dataset:size(), dataset.views, dataset.classes })
  end)
  it('has its problems counted by kind, with examples, before anything else', function()
    os.remove(object[1] .. '/image_2.jpg')
    os.remove(object[1] .. '/image_3.jpg')
    cut(object[2] .. '/image_1.jpg')
    write(object[2] .. '/image_0.jpg', '')
    os.remove(object[3] .. '/latent_0.npy')
    npy.save(object[4] .. '/latent_1.npy', tycho.zeros({ 6 }, 'f64'))
    npy.save(object[4] .. '/latent_2.npy', tycho.full({ 7 }, 0 / 0, 'f64'))
    write(object[4] .. '/latent_3.npy', '\147NUMPY\1\0')
    os.execute('rm -r ' .. object[5])
    refuses({ '5 of the 7 objects that train_images.npy names cannot be used', 'on_bad=skip', 'missing images: 2 of 1 object\n',
      object[1] .. '/image_2.jpg\n', 'damaged images: 2 of 1 object\n', object[2] .. '/image_0.jpg: expected a JPEG or PNG image, got an empty file',
      'truncated JPEG', 'missing latents: 1\n', 'damaged latents: 3 of 1 object\n', 'latent_1.npy: expected 7 numbers',
      'latent_2.npy: a number that is not finite', 'latent_3.npy: not a .npy array', 'absent objects: 1\n    ' .. object[5] }, open, root)
  end)
  it('may leave out the objects that are bad, and says so once', function()
    local whole = open(toy)
    os.remove(object[2] .. '/image_0.jpg')
    relabel { 0, 1, 2, 0, 1.5, 2, 0 }
    local dataset, said = listening(open, root, { on_bad = 'skip' })
    assert.truthy(said:find('2 of the 7 objects that train_images.npy names cannot be used and are left out', 1, true))
    assert.truthy(said:find('labels out of range: 1\n    1.5 of /', 1, true))
    assert.equal(5, dataset:size())
    assert.same({ 0, 2, 0, 2, 0 }, dataset.labels)
    for i, k in ipairs { 0, 2, 3, 5, 6 } do
      assert.equal(whole.objects[k + 1], dataset.objects[i])
      assert.same(whole:state(k, 3), dataset:state(i - 1, 3))
      assert.same(whole:images({ 4 * k + 1 }):tolist(), dataset:images({ 4 * (i - 1) + 1 }):tolist())
    end
    os.execute('rm -r ' .. root .. '/3DIEBench/*/*/image_3.jpg')
    for _, path in ipairs(object) do os.remove(path .. '/image_0.jpg') end
    refuses({ 'none is left' }, listening, open, root, { on_bad = 'skip' })
  end)
  it('has labels within the number of classes', function()
    relabel { 0, 1, 2, 3, -1, 54, 55 }
    local message = refuses({ 'labels out of range: 2\n', '-1 of /', '55 of /', 'expected 0 to 54 (classes=55)' }, open, root, { classes = 55 })
    assert.is_nil(message:find('54 of /', 1, true))
    relabel { 0, 1, 2, 3, 0, 54, 1e9 }
    assert.equal(1e9 + 1, open(root).classes)
    relabel { 0, 1, 2, 3, 0, 54, 1 }
    assert.equal(55, open(root, { classes = 55 }).classes)
  end)
  it('takes the number of views and latents from most of its objects', function()
    os.remove(object[1] .. '/image_3.jpg')
    npy.save(object[1] .. '/latent_0.npy', tycho.zeros({ 9 }, 'f64'))
    refuses({ '1 of the 7 objects', 'missing images: 1\n', 'expected 7 numbers' }, open, root)
    write(object[1] .. '/image_3.jpg', read(object[1] .. '/image_2.jpg'))
    write(object[1] .. '/image_4.jpg', read(object[1] .. '/image_2.jpg'))
    npy.save(object[1] .. '/latent_0.npy', tycho.zeros({ 7 }, 'f64'))
    assert.equal(4, open(root).views)
  end)
  it('may hold latents of any number type', function()
    local train = open(toy)
    for _, path in ipairs(object) do
      for k = 0, 3 do npy.save(('%s/latent_%d.npy'):format(path, k), npy.load(('%s/latent_%d.npy'):format(path, k)):to('f32')) end
    end
    assert.same(train:state(3, 2), open(root):state(3, 2))
  end)
  it('says where an index, the objects or a damaged body are', function()
    refuses({ 'data_dir=/nonexistent: expected meta/train_images.npy or train.pack in it' }, open, '/nonexistent')
    npy.save(root .. '/meta/train_labels.npy', tycho.zeros({ 3 }, 'i64'))
    refuses({ 'train_images.npy has 7 entries and train_labels.npy 3; expected the same number' }, open, root)
    relabel { 0, 0, 0, 0, 0, 0, 0 }
    -- Damage that only the decoder sees: the file has its markers, but not all of its data.
    local path = object[1] .. '/image_1.jpg'
    write(path, read(path):sub(1, -200) .. '\255\217')
    for _, room in ipairs { 0, 1e9 } do
      local dataset = open(root, { max_cached = room })
      dataset:prefetch { 1, 2 }
      if image.decoder() ~= 'stb_image' then
        for _ = 1, 2 do
          refuses({ path .. ': expected a JPEG or PNG image, got a damaged or unsupported JPEG' }, dataset.images, dataset, { 1, 2 })
        end
      end
      dataset:images { 2, 3 }
    end
    os.execute('rm -r ' .. root .. '/3DIEBench/*')
    refuses({ 'none of the objects that the index names is there', 'is the archive unpacked here?' }, open, root)
  end)
  it('has a fingerprint that follows what decides its samples', function()
    local first = open(root):fingerprint()
    local seen = { [first] = true }
    local function changes(options)
      local word = open(root, options):fingerprint()
      assert.is_nil(seen[word])
      seen[word] = true
    end
    assert.equal(first, open(root, { workers = 0, max_cached = 0 }):fingerprint())
    changes { resolution = 20 }
    changes { split = 'val' }
    image.save(object[1] .. '/image_0.jpg', image.load(object[1] .. '/image_0.jpg'), 90)
    changes()
    npy.save(object[1] .. '/latent_0.npy', tycho.zeros({ 7 }, 'f64'))
    changes()
    relabel { 0, 0, 0, 0, 0, 0, 0 }
    changes()
    os.remove(object[7] .. '/image_0.jpg')
    local word = listening(open, root, { on_bad = 'skip' }):fingerprint()
    assert.is_nil(seen[word])
    local decoder = image.set_decoder('stb')
    local other = listening(open, root, { on_bad = 'skip' }):fingerprint()
    image.set_decoder(decoder)
    assert(other ~= word or image.decoder() == 'stb_image')
  end)
  it('refuses settings that make no sense', function()
    refuses({ 'workers must be a whole number >= 0, got -1' }, open, root, { workers = -1 })
    refuses({ 'resolution must be a whole number >= 1, got 1.5' }, open, root, { resolution = 1.5 })
    refuses({ 'classes must be a whole number >= 1, got 0' }, open, root, { classes = 0 })
    refuses({ 'on_bad must be error or skip, got ignore' }, open, root, { on_bad = 'ignore' })
  end)
end)

describe('a packed file', function()
  local out = folder .. '/packed'
  local path = out .. '/train.pack'
  local function settings(changes)
    local all = { data_dir = toy, split = 'train', resolution = 24, workers = 2, on_bad = 'error' }
    for key, value in pairs(changes or {}) do all[key] = value end
    return all
  end
  local function run(changes) return (listening(packing.run, settings(changes), path)) end
  before_each(function() os.execute(('rm -rf %s; mkdir %s'):format(out, out)) end)

  it('gives the samples of the tree, bit for bit, as does every way to load that', function()
    run()
    local function samples(dir, options)
      local dataset = open(dir, options)
      local list = dataset:draw_pairs({ 3, 0, 6, 2 }, tycho.generator(1, 2))
      local parts = {}
      for round = 1, 3 do
        if round > 1 then dataset:prefetch(round == 2 and dataset:items(list) or { 1, 0, 5 }) end
        local batch = dataset:batch(list)
        for _, key in ipairs { 'x', 'r', 'latents', 'y' } do parts[#parts + 1] = bytes(batch[key]) end
      end
      return table.concat(parts)
    end
    local expected = samples(out)
    for _, workers in ipairs { 0, 1, 2, 16 } do
      for _, room in ipairs { 0, 1e9 } do assert.equal(expected, samples(toy, { workers = workers, max_cached = room })) end
    end
    local a, b = open(toy), open(out)
    assert.same({ a.objects, a.labels, a.views, a.classes, a:size() }, { b.objects, b.labels, b.views, b.classes, b:size() })
    assert.equal(bytes(a.latents), bytes(b.latents))
    assert.is_string(b:fingerprint())
  end)
  on_each_device('on', function(name)
    it('gives the same samples from its memory and from that of the host', function()
      run()
      local function batch(options)
        local dataset = open(out, options)
        local list = dataset:draw_pairs({ 3, 0, 6, 2 }, tycho.generator(1, 2))
        dataset:prefetch(dataset:items(list))
        return dataset:batch(list).x, dataset
      end
      local there, resident = batch { device = name, resident = true }
      local streamed, not_resident = batch { device = name, resident = false }
      assert.equal(name, there.device)
      assert.equal(bytes(streamed:cpu()), bytes(there:cpu()))
      local apart = (there:cpu() - batch()):abs():sum():item()
      assert(apart / there:numel() < 1e-6, apart)
      assert.equal(('train images: in the memory of %s, 0.0 GB'):format(name), resident.placement)
      assert.equal('train images: in the memory of the host', not_resident.placement)
      assert.is_nil(select(2, batch()).placement)
      assert.equal('train images: in the memory of the host: only those of a packed file are kept there (./tycho experiments/pack.lua makes one)',
        open(toy, { device = name }).placement)
    end)

    it('gives the same batches as a tree does in every way, beside its work', function()
      run()
      local g, batches = tycho.generator(3, 4), {}
      for i, count in ipairs { 4, 2, 7, 7, 3, 7, 1, 5 } do
        batches[i] = {}
        for k = 1, count do batches[i][k] = g:integer(7 * 4) end
      end
      local function all(dir, options, ahead)
        local dataset, list = open(dir, options), {}
        for i, items in ipairs(batches) do
          list[i] = dataset:images(items)
          if ahead then dataset:prefetch(ahead == 'wrong' and { 0 } or batches[i + 1] or batches[1]) end
        end
        for i, x in ipairs(list) do list[i] = hash(bytes(x:cpu())) end -- only now: nothing has waited before
        return list
      end
      local wanted = all(out, { device = name, resident = true })
      local ways = { { out, {} }, { out, { workers = 0 } }, { toy, {} }, { toy, { max_cached = 0 } }, { toy, { max_cached = 0, workers = 0 } } }
      for _, way in ipairs(ways) do
        way[2].device, way[2].resident = name, false
        for _, ahead in ipairs { false, 'right', 'wrong' } do assert.same(wanted, all(way[1], way[2], ahead)) end
      end
    end)
  end)
  it('refuses a batch inside of a captured step', function()
    local problem = device.problem 'cuda-host'
    if problem then return pending(problem) end
    run()
    local dataset = open(out, { device = 'cuda-host', resident = false })
    local step = tycho.graph(function(inputs) return dataset:images { 1 }:sum() + inputs.x end)
    local x = tycho.ones({}, 'f32', 'cuda-host')
    local first = step { x = x }:item()
    local message = failure(step, { x = x })
    assert.matches('a batch was asked for inside a captured step: make it before the step, and give it as an input$', message)
    step = tycho.graph(function(inputs) return inputs.images:sum() + inputs.x end)
    for _ = 1, 3 do assert.equal(first, step({ x = x, images = dataset:images { 1 } }):item()) end
  end)
  it('says when it does not fit into the memory of a device', function()
    local problem = device.problem 'cuda-host'
    if problem then return pending(problem) end
    run()
    local release = full_memory 'cuda-host'
    local ok, message = pcall(open, out, { device = 'cuda-host', resident = true })
    local dataset = open(out, { device = 'cuda-host' })
    release()
    assert.is_false(ok)
    assert.matches('^resident=True: they take 0.0 GB, %d+.%d GB of cuda%-host are free; set resident=auto$', message)
    assert.matches('host: they take 0.0 GB, %d+.%d GB of cuda%-host are free, and a training needs up to 14 GB', dataset.placement)
    assert.equal('cuda-host', dataset:batch(dataset:draw_pairs({ 0 }, tycho.generator(1, 2))).x.device)
  end)
  it('has right checksums, and tells damage', function()
    run()
    local seen = 0
    pack.verify(path, function() seen = seen + 1 end)
    assert.equal(7, seen)
    local text = read(path)
    local function damaged(at) write(path, text:sub(1, at - 1) .. string.char((text:byte(at) + 1) % 256) .. text:sub(at + 1)) end
    damaged(4096 + 2 * 4 * 24 * 24 * 3 + 100)
    refuses({ path, 'the images of 1 of 7 objects are damaged, the first: ' .. open(toy).objects[3] }, pack.verify, path)
    assert.equal(7, open(out):size())
    damaged(4096 + 7 * 4 * 24 * 24 * 3 + 100)
    refuses({ path, 'its rows, labels or names are damaged' }, pack.verify, path)
    damaged(60)
    refuses({ path, 'the header is damaged' }, open, out)
    write(path, text:sub(1, -10))
    refuses({ path, ('must have %d bytes, it has %d'):format(#text, #text - 9) }, open, out)
    write(path, text:sub(1, 20))
    refuses({ path, 'not a packed image set' }, open, out)
  end)
  it('of another version, byte order, resolution or number of classes is refused', function()
    run()
    local text = read(path)
    refuses({ path .. ' holds images of 24 x 24, resolution=32; set resolution=24' }, open, out, { resolution = 32 })
    refuses({ 'expected 0 to 1 (classes=2)' }, open, out, { classes = 2 })
    write(path, text:sub(1, 8) .. file.put_u32(2) .. text:sub(13))
    refuses({ path, 'has version 2 of the format, this program reads version 1; pack the data again' }, open, out)
    local length = file.u32(ffi.cast('const uint8_t *', text) + 12)
    local header = text:sub(33, 32 + length):gsub('little', 'big')
    write(path, text:sub(1, 12) .. file.put_u32(#header) .. hash(header) .. header .. ('\0'):rep(length - #header) .. text:sub(33 + length))
    refuses({ path, 'big-endian byte order' }, open, out)
    write(path, text:sub(1, 12) .. file.put_u32(1) .. hash '5' .. '5' .. text:sub(34))
    refuses({ path, 'the header is no JSON object' }, open, out)
  end)
  it('is the same file after a writer was killed anywhere', function()
    run()
    local whole = read(path)
    -- A writer that stops after some objects, as kill -9 stops it: what it handed to the system is there.
    local create = pack.create
    local function stopped_after(n)
      os.remove(path)
      pack.create = function(...)
        local writer = create(...)
        local add = writer.add
        writer.add = function(self, images)
          if self.settled == n then error('killed', 0) end
          return add(self, images)
        end
        return writer
      end
      refuses({ 'killed' }, run)
      pack.create = create
      assert.is_nil(lfs.attributes(path))
    end
    local function goes_on_from(n)
      local settled
      pack.create = function(...)
        local writer = create(...)
        settled = writer.settled
        return writer
      end
      assert.equal(7, run())
      pack.create = create
      assert.equal(n, settled)
      assert(read(path) == whole)
      assert.is_nil(lfs.attributes(path .. '.journal'))
      assert.is_nil(lfs.attributes(path .. '.partial'))
    end
    for _, n in ipairs { 0, 1, 5 } do
      stopped_after(n)
      goes_on_from(n)
    end
    local journal, partial = path .. '.journal', path .. '.partial'
    stopped_after(4)
    write(journal, read(journal):sub(1, -5)) -- a line that was cut off
    goes_on_from(3)
    stopped_after(4)
    write(partial, read(partial):sub(1, -5)) -- images that never reached the disk
    goes_on_from(3)
    stopped_after(4)
    local text = read(partial)
    write(partial, text:sub(1, 5000) .. string.char((text:byte(5001) + 1) % 256) .. text:sub(5002))
    goes_on_from(0)
    stopped_after(2)
    os.remove(partial)
    goes_on_from(0)
    -- Another resolution is another file.
    stopped_after(2)
    refuses({ 'train.pack.partial was begun as', '24 x 24', '16 x 16', 'remove it to begin anew' }, run, { resolution = 16 })
    goes_on_from(2)
  end)
  it('goes on from the first object whose files have changed', function()
    local root = folder .. '/changing'
    os.execute(('rm -rf %s; cp -r %s %s'):format(root, toy, root))
    local dataset = open(root)
    local second, third = dataset.root .. dataset.objects[2] .. '/image_0.jpg', dataset.root .. dataset.objects[3] .. '/image_1.jpg'
    local good = read(third)
    if image.decoder() == 'stb_image' then return pending('needs a decoder that tells damage') end
    write(third, good:sub(1, -200) .. '\255\217')
    refuses({ '1 of the 7 objects of train cannot be decoded', 'damaged images: 1\n', third, '2 objects are packed already' }, run,
      { data_dir = root })
    assert.is_nil(lfs.attributes(path))
    -- Mended, and the second object changed as well: the file is as if nothing had been packed before.
    write(third, good)
    local before = read(second)
    image.save(second, image.load(second), 60)
    assert.equal(7, run { data_dir = root })
    local whole = read(path)
    os.remove(path)
    run { data_dir = root }
    assert(read(path) == whole)
    os.remove(path)
    write(second, before)
    -- Or leaves it out.
    write(third, good:sub(1, -200) .. '\255\217')
    local _, said = listening(packing.run, settings { data_dir = root, on_bad = 'skip' }, path)
    assert.truthy(said:find('1 of the 7 objects of train cannot be decoded and are left out', 1, true))
    local a, b = open(toy), open(out)
    assert.equal(6, b:size())
    assert.same({ a.objects[2], a.objects[4], a.labels[4] }, { b.objects[2], b.objects[3], b.labels[3] })
    assert.same(a:state(3, 1), b:state(2, 1))
    assert.equal(bytes(a:images { 13 }), bytes(b:images { 9 }))
  end)
  it('that does not fit on the disk costs nothing that is packed', function()
    run()
    local whole = read(path)
    os.execute(('rm -rf %s'):format(out))
    local function packs(before)
      return shell(('%s ./tycho experiments/pack.lua data_dir=%s out=%s resolution=24'):format(before, toy, out))
    end
    local said, status = packs 'ulimit -f 32;' -- files of at most 16 or 32 kB
    says(said, 'cannot write: File too large')
    assert.equal(1, status)
    said, status = packs ''
    says(said, 'train.pack: 7 objects, 0 left out')
    assert.equal(0, status)
    assert(read(path) == whole)
    says((packs ''), 'is there already')
  end)
  it('is written by one process at a time', function()
    local header = { views = 1, height = 2, width = 2, columns = 1, decoder = 'none' }
    local writer = pack.create(path, header, { 'a' })
    local script = ([[require('tycho.data.pack').create('%s', { views = 1, height = 2, width = 2, columns = 1, decoder = 'none' }, { 'a' })]])
      :format(path)
    assert.equal(('tycho: %s is being written by another process\n'):format(path), (shell(('./tycho -e "%s"'):format(script))))
    writer:add(tycho.zeros({ 1, 2, 2, 3 }, 'u8'))
    refuses({ path, 'the header has ', 'at most 4064 fit' }, writer.finish, writer, { rows = tycho.zeros({ 1, 1 }, 'f64'),
      labels = tycho.zeros({ 1 }, 'i64'), names = { 'a' }, source = ('s'):rep(4000) })
    assert.is_nil(lfs.attributes(path))
    writer:close()
    pack.remove(path)
  end)
end)

describe('a checksum', function()
  it('is XXH64', function()
    -- Known answers of the reference implementation (xxhsum -H64).
    assert.equal('ef46db3751d8e999', hash(''))
    assert.equal('44bc2cf5ad770999', hash('abc'))
    assert.equal('0b242d361fda71bc', hash('The quick brown fox jumps over the lazy dog'))
  end)
end)
