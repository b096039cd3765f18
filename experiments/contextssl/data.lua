-- A split of objects seen from several views: opens its packed file or its tree of JPEG files, and makes batches of pairs. Both give the same
-- samples. Images of a tree are decoded when they are first needed and kept while there is room; those of a packed file are never read whole.
local lfs = require 'lfs'
local tycho = require 'tycho'
local device = require 'tycho.device'
local hash = require 'tycho.hash'
local image = require 'tycho.io.image'
local loader = require 'tycho.data.loader'
local new_ring = require 'tycho.data.ring'
local packed = require 'tycho.data.pack'
local progress = require 'tycho.train.progress'
local latents = require 'experiments.contextssl.latents'
local tree = require 'experiments.contextssl.tree'

local Dataset = {}
Dataset.__index = Dataset
local M = {}

-- ---- opening ----

local function open_pack(self, path, options)
  local pack = packed.open(path)
  local header = pack.header
  if header.height ~= self.resolution or header.width ~= self.resolution then
    error(('%s holds images of %d x %d, resolution=%d; set resolution=%d, or pack the data again at the other'):format(path, header.height,
      header.width, self.resolution, header.height), 0)
  end
  self.objects, self.labels, self.views, self.latents = pack.names, pack.labels:tolist(), header.views, pack.rows
  self.pixels, self.identity = pack.images, pack.checksum
  for i, label in ipairs(self.labels) do
    if options.classes and label >= options.classes then
      error(('%s: label %d of %s, expected 0 to %d (classes=%d)'):format(path, label, self.objects[i], options.classes - 1, options.classes), 0)
    end
  end
end

local function open_tree(self, options)
  local found = tree.read { data_dir = options.data_dir, split = self.split, classes = options.classes, on_bad = options.on_bad,
    workers = self.workers }
  self.objects, self.labels, self.views, self.latents, self.root = found.names, found.labels, found.views, found.latents, found.root
  self.identity = hash(table.concat({ table.concat(found.names, '\n'), table.concat(found.labels, ' '), hash(found.latents),
    hash(found.sizes), found.views, self.resolution, image.decoder() }, '\n'))
  local bytes = #self.objects * self.views * self.resolution ^ 2 * 3
  if bytes <= (options.max_cached or 2e9) then
    self.pixels = tycho.keep(tycho.empty({ #self.objects * self.views, self.resolution, self.resolution, 3 }, 'u8'))
    self.decoded = {}
  end
end

-- ---- images in a device's memory ----

local ROOM = 14e9 -- bytes of it that a training of the published sizes needs besides
local CHUNK = 256e6 -- bytes that are copied at once

local function upload(self)
  local pixels = self.pixels
  local resident = tycho.keep(tycho.empty(pixels.shape, 'u8', self.device))
  local rows = math.max(1, math.floor(CHUNK / (pixels:numel() / pixels:size(0))))
  local line = progress(('%s images to %s'):format(self.split, self.device), pixels:size(0))
  for first = 0, pixels:size(0) - 1, rows do
    local count = math.min(rows, pixels:size(0) - first)
    resident:narrow(0, first, count):copy_(pixels:narrow(0, first, count))
    line:update(first + count, nil, 1)
  end
  line:finish()
  return resident
end

-- Puts the images where batches are made, if they may go there and there is room.
local function place(self, wanted)
  if self.device == 'cpu' then return end
  local bytes, free = self.pixels and self.pixels:numel() or 0, device.free_bytes(self.device)
  local lacks = self.root and 'only those of a packed file are kept there (./tycho experiments/pack.lua makes one)'
    or bytes > free - (wanted == true and 0 or ROOM) and ('they take %.1f GB, %.1f GB of %s are free%s'):format(bytes / 1e9, free / 1e9, self.device,
      wanted == true and '' or (', and a training needs up to %.0f GB of them'):format(ROOM / 1e9))
  if wanted == true and lacks then error(('resident=True: %s; set resident=auto'):format(lacks), 0) end
  if wanted == false or lacks then
    self.placement = ('%s images: in the memory of the host%s'):format(self.split, lacks and ': ' .. lacks or '')
  else
    self.resident = upload(self)
    self.placement = ('%s images: in the memory of %s, %.1f GB'):format(self.split, self.device, bytes / 1e9)
  end
end

-- options: data_dir (a folder with SPLIT.pack in it, or one in 3DIEBench's layout), resolution, split ('train' or 'val'), image_mean, image_std,
-- classes (labels must be below it; nil: any), on_bad ('error', the default, or 'skip': see tree.lua), workers (decoding threads, at most the
-- machine's cores; 0: none beside the caller's; default 16), max_cached (bytes of decoded images of a tree to keep; default 2 GB), device (where
-- batches are; default 'cpu'), resident ('auto', the default, true or false: whether the images of a packed file are there too). The data set's
-- placement is a sentence about that, or nil on the CPU.
function M.open(options)
  local self = setmetatable({ split = options.split, resolution = options.resolution, mean = options.image_mean, std = options.image_std,
    workers = options.workers or 16, device = options.device or 'cpu' }, Dataset)
  tree.check(options)
  local path = ('%s/%s.pack'):format(options.data_dir, self.split)
  if lfs.attributes(path) then open_pack(self, path, options) else open_tree(self, options) end
  place(self, options.resident)
  self.classes = options.classes or 0
  for _, label in ipairs(self.labels) do self.classes = math.max(self.classes, label + 1) end
  self.rounded = tycho.keep(tycho.empty { self.latents:size(1) })
  return self
end

-- The split of the data set that the settings name.
function M.of(config, split)
  return M.open { data_dir = config.data_dir, split = split, resolution = config.resolution, image_mean = config.image_mean,
    image_std = config.image_std, classes = config.classes, on_bad = config.on_bad, workers = config.workers, resident = config.resident,
    device = device.choose(config.device or 'cpu') }
end

function Dataset:size() return #self.objects end

-- A word that changes with the samples: the index, labels, latents and the size of each image file of a tree, or the checksums of a packed file,
-- the resolution and the JPEG decoder. A tree and a file packed from it have different ones.
function Dataset:fingerprint() return self.identity end

-- The number of a view among all, objects and views counted from 0. Raises for one that is not there.
local function item_of(self, object, view)
  if type(object) ~= 'number' or type(view) ~= 'number' or not (object >= 0 and object < #self.objects and view >= 0 and view < self.views)
    or object % 1 ~= 0 or view % 1 ~= 0 then
    error(('the %s images have no view %s of object %s: views count from 0 to %d, objects from 0 to %d'):format(self.split, tostring(view),
      tostring(object), self.views - 1, #self.objects - 1), 0)
  end
  return object * self.views + view
end

-- State of a view (latents.state), objects and views counted from 0.
function Dataset:state(object, view)
  local columns = self.latents:size(1)
  local from, to = self.latents:ptr() + item_of(self, object, view) * columns, self.rounded:ptr()
  for i = 0, columns - 1 do to[i] = from[i] end
  return latents.state(to)
end

-- ---- images ----

-- Starts to decode items into rows of `into`, or into its first rows.
local function decode(self, items, into, rows)
  local paths = {}
  for i, item in ipairs(items) do
    paths[i] = ('%s%s/image_%d.jpg'):format(self.root, self.objects[math.floor(item / self.views) + 1], item % self.views)
  end
  return loader.start { paths = paths, into = into, rows = rows, threads = self.workers }
end

-- Memory for the bytes of count images, u8 (count,H,W,3), which the next batch may take again: on the CPU, or on their way to the device.
local function room_for(self, count)
  local size = { self.resolution, self.resolution, 3 }
  if self.device ~= 'cpu' then
    if not self.ring or self.ring.rows < count then self.ring = new_ring(self.device, count, size) end
    return self.ring:fill(count)
  end
  if not self.batch_pixels or self.batch_pixels:size(0) < count then
    self.batch_pixels = tycho.keep(tycho.empty({ count, unpack(size) }, 'u8'))
  end
  return self.batch_pixels:narrow(0, 0, count)
end

-- Starts to copy the bytes of items, which are all in self.pixels, to where they leave for the device.
local function gather(self, items)
  return loader.gather(room_for(self, #items), self.pixels, tycho.tensor(items, 'i64'), self.workers)
end

-- Starts what is needed for items; self.pending holds it: job, which brings missing ones into self.pixels where there are any, and items to the
-- memory of a batch (job.into) else. No job where all is there.
local function start(self, items)
  local pending, missing, seen = { items = items }, {}, {}
  for _, item in ipairs(self.decoded and items or {}) do
    if not self.decoded[item] and not seen[item] then seen[item], missing[#missing + 1] = true, item end
  end
  if missing[1] then
    pending.missing, pending.job = missing, decode(self, missing, self.pixels, missing)
  elseif not self.pixels then
    pending.job = decode(self, items, room_for(self, #items))
  elseif self.device ~= 'cpu' then
    pending.job = gather(self, items)
  end
  self.pending = pending
end

-- Ends what was started; raises the error of its first bad image. Returns the memory of the batch, nil where the items are in self.pixels.
local function settle(self)
  local pending = self.pending
  self.pending = nil
  if not pending.job then return end
  local errors = pending.job:finish()
  for i, item in ipairs(pending.missing or {}) do self.decoded[item] = not errors[i] end
  local into = pending.job:wait()
  return into ~= self.pixels and into or nil
end

-- Ends what was started for items that nobody asked for; images that are to be kept are finished.
local function abandon(self)
  if self.pending.missing then return pcall(settle, self) end
  if self.pending.job then self.pending.job:stop() end
  self.pending = nil
end

local function same(a, b)
  if #a ~= #b then return false end
  for i = 1, #a do
    if a[i] ~= b[i] then return false end
  end
  return true
end

-- Starts to read the images of items, to be asked for next, while the caller goes on. With workers = 0 nothing happens before they are asked for.
function Dataset:prefetch(items)
  if self.resident then return end
  if not self.root and self.device == 'cpu' then
    image.read_ahead(self.pixels, tycho.tensor(items, 'i64'))
  elseif self.workers > 0 and not self.pending then
    start(self, items)
  end
end

-- Normalised images (n,3,H,W) of items; item = object * views + view. To a device go bytes, or their numbers alone where the images are there.
function Dataset:images(items)
  local pixels = self.resident or self.pixels
  if not self.resident then
    if self.pending and not same(self.pending.items, items) then abandon(self) end
    if not self.pending then start(self, items) end
    local bytes = settle(self)
    if self.device ~= 'cpu' then
      if not bytes then gather(self, items):wait() end
      local images = image.normalize(self.ring:send(), self.mean, self.std)
      self.ring:release()
      return images
    end
    if bytes then return image.normalize(bytes, self.mean, self.std) end
  end
  return image.normalize(pixels, self.mean, self.std, tycho.tensor(items, 'i64', self.device))
end

-- ---- batches ----

-- The items of a batch of pairs (list of {object, view 1, view 2}), views interleaved.
function Dataset:items(list)
  local items = {}
  for i, pair in ipairs(list) do
    items[2 * i - 1], items[2 * i] = item_of(self, pair[1], pair[2]), item_of(self, pair[1], pair[3])
  end
  return items
end

-- A batch of pairs. pairs: list of {object, view 1, view 2}. Returns x (2B,3,H,W) with views interleaved, r (B,6), latents (B,2,6), y (B).
function Dataset:batch(list)
  local r, states, y = {}, {}, {}
  for i, pair in ipairs(list) do
    local a, b = self:state(pair[1], pair[2]), self:state(pair[1], pair[3])
    r[i], states[i], y[i] = latents.action(a, b), { a, b }, self.labels[pair[1] + 1]
  end
  return { x = self:images(self:items(list)), r = tycho.tensor(r, 'f32', self.device), latents = tycho.tensor(states, 'f32', self.device),
    y = tycho.tensor(y, 'i64', self.device) }
end

-- Pairs of two different random views, one for each object of the list.
function Dataset:draw_pairs(objects, generator)
  local list = {}
  for i, object in ipairs(objects) do
    local views = generator:choose(2, self.views)
    list[i] = { object, views[1], views[2] }
  end
  return list
end

-- The evaluation context: `count` pairs of different objects where there are enough.
function Dataset:context(count, seed)
  local generator = tycho.generator(seed, 100)
  local objects = {}
  while #objects < count do
    for _, object in ipairs(generator:choose(math.min(count - #objects, self:size()), self:size())) do objects[#objects + 1] = object end
  end
  return self:batch(self:draw_pairs(objects, generator))
end

return M
