-- Checks images (decoding by each decoder, resizing, normalising), latents (quaternions, actions) and a small tree in 3DIEBench's layout.
local tycho = require 'tycho'
local image_file = require 'tycho.io.image'
local json = require 'tycho.io.json'
local npy = require 'tycho.io.npy'
local npz = require 'tycho.io.npz'
local data = require 'experiments.contextssl.data'
local latents = require 'experiments.contextssl.latents'
local compare = require 'spec.parity.compare'
local lfs = require 'lfs'

local MEAN, STD = { .5016, .5037, .5060 }, { .1030, .0999, .0969 }

-- ---- images ----

local function mean_difference(a, b)
  local sum, n = 0, a:numel()
  a, b = a:contiguous(), b:contiguous()
  for i = 0, n - 1 do sum = sum + math.abs(a:ptr()[i] - b:ptr()[i]) end
  return sum / n
end

-- Arrays of one image: NAME.KIND.npy files, or the entries of an archive packed.npz of the same names without .npy.
local function opener(dir)
  local packed = lfs.attributes(dir .. '/packed.npz') and npz.load(dir .. '/packed.npz') or {}
  return function(name)
    if packed[name] then return packed[name] end
    return lfs.attributes(dir .. '/' .. name .. '.npy') and npy.load(dir .. '/' .. name .. '.npy')
  end, packed
end

local function each_file(dir, packed)
  local names = {}
  for file in lfs.dir(dir) do
    if file:match('%.npy$') then names[#names + 1] = file:sub(1, -5) end
  end
  for name in pairs(packed) do names[#names + 1] = name end
  table.sort(names)
  return ipairs(names)
end

-- Calls fn(name, exact) with each JPEG decoder that is installed. exact: it must give Pillow's bytes, because Pillow uses the same library.
local function each_decoder(fn)
  local chosen = image_file.set_decoder('auto')
  for _, name in ipairs { 'turbo', 'stb' } do
    if pcall(image_file.set_decoder, name) then fn(name, name == 'turbo') end
  end
  image_file.set_decoder(chosen)
end

local function check_decoding(path, name, mode, expected, report, check)
  each_decoder(function(decoder, exact)
    local got = image_file.load(path)
    local what = ('decode %s by %s'):format(name, decoder)
    if exact and mode ~= 'CMYK' then return check.abs(what, got, expected, 0) end
    -- Another conforming decoder may differ by rounding, and at chroma edges by more.
    local mean = mean_difference(got, expected)
    report(what .. ' (mean)', mean, 0.3, mean <= 0.3)
    check.abs(what .. ' (largest)', got, expected, 24)
  end)
end

local function check_images(dir, report, check)
  local open, packed = opener(dir)
  local images = json.load(dir .. '/images.json')
  for _, name in each_file(dir, packed) do
    local image, kind = name:match('^(.-)%.(.*)$')
    local height, width = name:match('_(%d+)x(%d+)_hw$')
    local square = kind and kind:match('^resized(%d+)$')
    compare.guard(report, name, function()
      if kind == 'decoded' then
        check_decoding(('%s/%s.jpg'):format(dir, image), image, images[image].pil_mode, open(name), report, check)
      elseif square or (kind and height) then
        local resized = image_file.resize(open(image .. '.decoded'), tonumber(square or height), tonumber(square or width))
        check.abs('resize ' .. name, resized, open(name), 0)
      elseif kind == 'normalised_f16' then
        local expected = open(name):to('f32')
        local pixels = open(('%s.resized%d'):format(image, expected:size(1)))
        local x = image_file.normalize(pixels:reshape { 1, pixels:size(0), pixels:size(1), 3 }, MEAN, STD)
        check.abs('normalise ' .. image, x:select(0, 0), expected, 2e-3)
        local first = images[image].final_first8
        check.abs('normalise ' .. image .. ' (first)', x:select(0, 0):contiguous():reshape({ -1 }):narrow(0, 0, #first),
          tycho.tensor(first), 1e-6)
      elseif height and name:match('^resize_noise') then
        check.abs(name, image_file.resize(open('resize_noise_in'), tonumber(height), tonumber(width)), open(name), 0)
      end
    end)
  end
end

-- ---- latents ----

local function check_latents(path, name, check)
  local a = npz.load(path)
  local n = a.latents:size(0)
  local quaternions, relative, r, states = { {}, {} }, {}, {}, {}
  local angles = a.latents:to('f32')
  for i = 0, n - 1 do
    local pair = {}
    for v = 0, 1 do
      pair[v + 1] = latents.state(angles[i][v]:ptr())
      quaternions[v + 1][i + 1] = { unpack(pair[v + 1], 1, 4) }
    end
    relative[i + 1] = { latents.relative(pair[1], pair[2]) }
    r[i + 1], states[i + 1] = latents.action(pair[1], pair[2]), pair
  end
  check.abs(name .. ' quaternion 1', tycho.tensor(quaternions[1], 'f64'), a.quat_1, 1e-14)
  check.abs(name .. ' quaternion 2', tycho.tensor(quaternions[2], 'f64'), a.quat_2, 1e-14)
  check.abs(name .. ' relative', tycho.tensor(relative, 'f64'), a.rel_quat, 1e-14)
  check.abs(name .. ' r', tycho.tensor(r), a.r, 1e-6)
  check.abs(name .. ' i_latent', tycho.tensor(states), a.i_latent, 1e-6)
end

-- ---- a small tree ----

-- The two interleaved views of a batch, apart.
local function views_of(x)
  local rows = { {}, {} }
  for i = 0, x:size(0) - 1 do table.insert(rows[i % 2 + 1], i) end
  return x:index_select(rows[1]), x:index_select(rows[2])
end

-- The reference indexes its evaluation sets by 50 views an object, however many there are.
local INDEXED_VIEWS = 50

-- decoder: in names only; pixels: tolerance of a normalised value, l2: of all of them.
local function check_tree(dir, decoder, pixels, l2, report, check)
  local info = json.load(dir .. '/mini3die.json')
  local function open(split)
    return data.open { data_dir = dir .. '/mini3die', split = split, resolution = info.resolution, image_mean = MEAN, image_std = STD }
  end
  local function title(what) return ('mini3die by %s: %s'):format(decoder, what) end
  local train, val = open 'train', open 'val'
  for split, dataset in pairs { train = train, val = val } do
    local expected, wrong = info[split .. '_objects'], dataset.views == info.views_per_object and 0 or 1
    for i, object in ipairs(expected) do
      if dataset.objects[i] ~= object then wrong = wrong + 1 end
    end
    report(title('index ' .. split), wrong, 0, wrong == 0 and #expected == dataset:size())
  end
  local function pairs_of(a, key)
    local list = {}
    for i = 0, a.views:size(0) - 1 do list[i + 1] = { a[key][i]:item(), a.views[i][0]:item(), a.views[i][1]:item() } end
    return list
  end
  local a = npz.load(dir .. '/mini3die_samples.npz')
  local batch = train:batch(pairs_of(a, 'object'))
  local first, second = views_of(batch.x)
  check.abs(title 'x', first, a.x, pixels)
  check.abs(title 'xv', second, a.xv, pixels)
  check.l2(title 'x and xv', tycho.cat { first, second }, tycho.cat { a.x, a.xv }, l2)
  check.abs(title 'r', batch.r, a.r, 1e-6)
  check.abs(title 'i_latent', batch.latents, a.i_latent, 1e-6)
  check.abs(title 'y', batch.y, a.y, 0)

  a = npz.load(dir .. '/mini3die_cache.npz')
  batch = train:batch(pairs_of(a, 'object_index'))
  check.abs(title 'cache x', batch.x, a.x, pixels)
  check.abs(title 'cache r', batch.r, a.r, 1e-6)
  check.abs(title 'cache y', tycho.stack({ batch.y, batch.y }, 1):reshape { -1 }, a.y, 0)

  -- The ranking set of the reference is the train split.
  a = npz.load(dir .. '/mini3die_evalall.npz')
  local items, states, labels = {}, {}, {}
  for i = 0, a.index:numel() - 1 do
    local index = a.index[i]:item()
    local object, view = math.floor(index / INDEXED_VIEWS), index % INDEXED_VIEWS
    items[i + 1], states[i + 1], labels[i + 1] = object * val.views + view, val:state(object, view), val.labels[object + 1]
  end
  check.abs(title 'evalall x', val:images(items), a.x:to('f32'), math.max(pixels, 2e-3)) -- recorded as float16
  check.abs(title 'evalall latent', tycho.tensor(states), a.latent, 1e-6)
  check.abs(title 'evalall y', tycho.tensor(labels, 'i64'), a.y, 0)

  a = npz.load(dir .. '/mini3die_mrr.npz')
  local actions = {}
  for i = 0, a.index:numel() - 1 do
    local index = a.index[i]:item()
    local object = math.floor(index / INDEXED_VIEWS)
    actions[i + 1] = latents.action(train:state(object, 0), train:state(object, index % INDEXED_VIEWS))
  end
  check.abs(title 'mrr r', tycho.tensor(actions), a.r, 1e-6)
end

return function(dir, report)
  local check = compare.reporter(report)
  check_images(dir .. '/images', report, check)
  for file in lfs.dir(dir) do
    local name = file:match('^(latents_%d+)%.npz$')
    if name then compare.guard(report, name, function() check_latents(('%s/%s'):format(dir, file), name, check) end) end
  end
  each_decoder(function(decoder, exact)
    -- Rounding in another decoder, after normalisation by about 0.1 * 255 a level.
    compare.guard(report, 'mini3die', function() check_tree(dir, decoder, exact and 1e-6 or 0.5, exact and 1e-6 or 0.03, report, check) end)
  end)
end
