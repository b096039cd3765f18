-- Images/s of one core: from JPEG files of 256 x 256 and from a packed file to normalised 128 x 128 images, beside PIL and torchvision where
-- python3 has them. Renders its own images. ./tycho spec/bench/loading.lua [rounds=7]
local lfs = require 'lfs'
local tycho = require 'tycho'
local config = require 'tycho.config'
local image = require 'tycho.io.image'
local loader = require 'tycho.data.loader'
local pack = require 'tycho.data.pack'
local toy3d = require 'experiments.contextssl.toy3d'
local lib = require 'tycho.lib'

local settings = config.parse({
  rounds = 7,    -- each measures everything once
  views = 64,    -- images
  quality = 90,  -- of the JPEG files; 4:2:0 up to 90
  seconds = 0.3, -- least time of a measurement
  python = 'python3',
}, arg)
local SOURCE, SIZE = 256, 128
local MEAN, STD = { 0.5016, 0.5037, 0.5060 }, { 0.1030, 0.0999, 0.0969 }

-- ---- images ----

local folder = os.tmpname()
os.remove(folder)
lfs.mkdir(folder)
local paths, bytes = {}, 0
local object = toy3d.object({ seed = 0, classes = 8, views = settings.views, size = SOURCE, supersample = 2 }, 'train', 0)
for k = 0, settings.views - 1 do
  paths[k + 1] = ('%s/image_%d.jpg'):format(folder, k)
  image.save(paths[k + 1], object.images[k], settings.quality)
  bytes = bytes + lfs.attributes(paths[k + 1], 'size')
end
tycho.set_threads(1)

-- ---- what is measured: functions that process settings.views images ----

local small = tycho.empty({ settings.views, SIZE, SIZE, 3 }, 'u8')
local large = tycho.empty({ settings.views, SOURCE, SOURCE, 3 }, 'u8')
local function load(into) loader.start({ paths = paths, into = into, threads = 0 }):wait() end

-- A packed file larger than the caches, read in random order.
local OBJECTS = 32
local path, words = folder .. '/train.pack', {}
for i = 1, OBJECTS do words[i] = tostring(i) end
local writer = pack.create(path, { views = settings.views, height = SIZE, width = SIZE, columns = 7, decoder = image.decoder() }, words)
load(small)
for _ = 1, OBJECTS do writer:add(small) end
writer:finish { rows = tycho.zeros({ OBJECTS * settings.views, 7 }, 'f64'), labels = tycho.zeros({ OBJECTS }, 'i64'), names = words,
  source = 'rendered' }
local packed = pack.open(path).images
local order = tycho.generator(1):permutation(packed:size(0))
local at = 0

local function with(decoder, fn)
  return function()
    image.set_decoder(decoder)
    fn()
  end
end
local function to_float()
  load(small)
  image.normalize(small, MEAN, STD)
end
local rows = {}
local function row(name, fn) rows[#rows + 1] = { name = name, fn = fn, rates = {} } end
for _, decoder in ipairs { 'turbo', 'stb' } do
  if pcall(image.set_decoder, decoder) then
    local name = image.decoder()
    row('decode, ' .. name, with(decoder, function() load(large) end))
    row('decode, resize, normalise, ' .. name, with(decoder, to_float))
  else
    print(decoder .. ' is not installed')
  end
end
row('resize alone', function()
  for i = 0, settings.views - 1 do image.resize(large[i], SIZE, SIZE) end
end)
row('packed file: gather, normalise', function()
  local index = {}
  for i = 1, settings.views do index[i] = order[(at + i - 1) % #order + 1] end
  at = at + settings.views
  image.normalize(packed, MEAN, STD, tycho.tensor(index, 'i64'))
end)

-- ---- PIL and torchvision, in a process that takes its turn in every round ----

local python = { log = folder .. '/python.txt' }
function python.start()
  python.pipe = io.popen(('%s %s/spec/bench/loading.py %s %d %d %g > %s 2>&1'):format(settings.python, lib.root, folder, settings.views, SIZE,
    settings.seconds, python.log), 'w')
end
-- Its line number n, once that is there.
function python.line(n)
  while true do
    local count = 0
    for line in io.lines(python.log) do
      count = count + 1
      if count == n then return line end
    end
    os.execute('sleep 0.05')
  end
end

-- ---- rounds ----

local function rate(fn)
  local start, count = lib.cpu.ty_now(), 0
  repeat
    tycho.scope(fn)
    count = count + settings.views
  until lib.cpu.ty_now() - start > settings.seconds
  return count / (lib.cpu.ty_now() - start)
end

io.open(python.log, 'w'):close()
python.start()
local names = python.line(1)
local there, theirs = names:match('^PIL') ~= nil, {}
for name in (there and names or ''):gmatch('[^;]+') do
  theirs[#theirs + 1] = { name = name, rates = {} }
  rows[#rows + 1] = theirs[#theirs]
end
for _, entry in ipairs(rows) do
  if entry.fn then rate(entry.fn) end -- warm
end
for round = 1, settings.rounds do
  for _, entry in ipairs(rows) do
    if entry.fn then entry.rates[round] = rate(entry.fn) end
  end
  if there then
    python.pipe:write('round\n')
    python.pipe:flush()
    local i = 0
    for value in python.line(1 + round):gmatch('%S+') do
      i = i + 1
      theirs[i].rates[round] = tonumber(value)
    end
  end
end
python.pipe:close()
os.execute('rm -rf ' .. folder)

print(('%d JPEG files of %d x %d, quality %d, %.1f kB each, to %d x %d; one core, %d rounds'):format(settings.views, SOURCE, SOURCE,
  settings.quality, bytes / settings.views / 1000, SIZE, SIZE, settings.rounds))
if not there then print('not compared with PIL: ' .. names) end
print('| images/s of one core | median | min | max |\n|---|---|---|---|')
for _, entry in ipairs(rows) do
  table.sort(entry.rates)
  print(('| %s | %.0f | %.0f | %.0f |'):format(entry.name, entry.rates[math.ceil(#entry.rates / 2)], entry.rates[1], entry.rates[#entry.rates]))
end
