-- The 3DIEBench tree: <root>/<synset>/<object>/image_<k>.jpg with latent_<k>.npy, and meta/{train,val}_{images,labels}.npy.
-- Opens an index, checks it, and makes batches of pairs. Reads files when they are first needed; latents and decoded images are kept.
local lfs = require 'lfs'
local tycho = require 'tycho'
local image = require 'tycho.io.image'
local npy = require 'tycho.io.npy'
local latents = require 'experiments.contextssl.latents'

local Dataset = {}
Dataset.__index = Dataset
local M = {}

local function exists(path) return lfs.attributes(path) ~= nil end

local function find_meta(data_dir, split)
  for _, folder in ipairs { data_dir .. '/meta', data_dir .. '/3DIEBench/meta' } do
    if exists(folder .. '/' .. split .. '_images.npy') then return folder end
  end
  error(('data_dir=%s: expected meta/%s_images.npy in it; set data_dir to a folder in the 3DIEBench layout, or render one with '
    .. './tycho experiments/toy3d.lua out=%s'):format(data_dir, split, data_dir), 0)
end

local function count_views(folder)
  local n = 0
  while exists(('%s/image_%d.jpg'):format(folder, n)) do n = n + 1 end
  return n
end

-- Every object must have every view: problems are found before a run, not during it.
local function check_views(self)
  local bad, example = 0, nil
  for i, object in ipairs(self.objects) do
    for k = 0, self.views - 1 do
      for _, pattern in ipairs { '%s/image_%d.jpg', '%s/latent_%d.npy' } do
        local path = pattern:format(self.root .. object, k)
        local size = lfs.attributes(path, 'size')
        if not size or size == 0 then
          bad = bad + 1
          example = example or (path .. (size and ' is empty' or ' is missing'))
        end
      end
    end
    local label = self.labels[i]
    if label < 0 or label ~= math.floor(label) then
      error(('%s/%s_labels.npy: label %s of %s is not a class number >= 0'):format(self.meta, self.split, tostring(label), object), 0)
    end
  end
  if bad > 0 then
    error(('%s: %d of the files that %s_images.npy names cannot be used; the first: %s (every object needs views 0 to %d)'):format(self.root,
      bad, self.split, example, self.views - 1), 0)
  end
end

-- options: data_dir, resolution, split ('train' or 'val'), image_mean, image_std, max_cached (bytes of decoded images to keep; default 2 GB).
function M.open(options)
  local meta = find_meta(options.data_dir, options.split)
  local self = setmetatable({ split = options.split, meta = meta, resolution = options.resolution, mean = options.image_mean,
    std = options.image_std }, Dataset)
  self.objects = npy.load(('%s/%s_images.npy'):format(meta, self.split))
  self.labels = npy.load(('%s/%s_labels.npy'):format(meta, self.split)):tolist()
  if type(self.objects) ~= 'table' or tycho.is_tensor(self.objects) then
    error(('%s/%s_images.npy: expected an array of paths such as /synset/object/'):format(meta, self.split), 0)
  end
  if #self.objects ~= #self.labels or #self.objects == 0 then
    error(('%s: %s_images.npy has %d entries and %s_labels.npy %d; expected the same number, at least 1'):format(meta, self.split,
      #self.objects, self.split, #self.labels), 0)
  end
  for i, object in ipairs(self.objects) do self.objects[i] = '/' .. object:gsub('^/', ''):gsub('/$', '') end
  self.root = exists(options.data_dir .. '/3DIEBench') and options.data_dir .. '/3DIEBench' or options.data_dir
  self.views = count_views(self.root .. self.objects[1])
  if self.views < 2 then
    error(('%s%s: expected image_0.jpg, image_1.jpg, ... (at least two views), found %d'):format(self.root, self.objects[1], self.views), 0)
  end
  check_views(self)
  self.classes = 0
  for _, label in ipairs(self.labels) do self.classes = math.max(self.classes, label + 1) end
  self.states = {}
  local bytes = #self.objects * self.views * self.resolution ^ 2 * 3
  if bytes <= (options.max_cached or 2e9) then
    self.store = tycho.keep(tycho.empty({ #self.objects * self.views, self.resolution, self.resolution, 3 }, 'u8'))
    self.decoded = {}
  end
  return self
end

function Dataset:size() return #self.objects end

-- State of a view (latents.state), objects and views counted from 0.
function Dataset:state(object, view)
  local key = object * self.views + view
  local state = self.states[key]
  if not state then
    local path = ('%s%s/latent_%d.npy'):format(self.root, self.objects[object + 1], view)
    local values = npy.load(path)
    if not tycho.is_tensor(values) or values.ndim ~= 1 or values:size(0) < 7 then
      error(('%s: expected at least 7 numbers (Euler angles, floor hue, light direction, light hue)'):format(path), 0)
    end
    state = latents.state(values:to('f32'):ptr())
    self.states[key] = state
  end
  return state
end

local function read(self, items)
  local paths = {}
  for i, item in ipairs(items) do
    paths[i] = ('%s%s/image_%d.jpg'):format(self.root, self.objects[math.floor(item / self.views) + 1], item % self.views)
  end
  return image.load_all(paths, self.resolution, self.resolution)
end

-- Normalised images (n,3,H,W) of items; item = object * views + view.
function Dataset:images(items)
  local pixels, index
  if self.store then
    local missing = {}
    for _, item in ipairs(items) do
      if not self.decoded[item] then
        self.decoded[item] = true
        missing[#missing + 1] = item
      end
    end
    if #missing > 0 then
      local ok, fresh = pcall(read, self, missing)
      if not ok then
        for _, item in ipairs(missing) do self.decoded[item] = nil end
        error(fresh, 0)
      end
      for i, item in ipairs(missing) do self.store:select(0, item):copy_(fresh:select(0, i - 1)) end
    end
    pixels, index = self.store, tycho.tensor(items, 'i64')
  else
    pixels = read(self, items)
  end
  return image.normalize(pixels, self.mean, self.std, index)
end

-- A batch of pairs. pairs: list of {object, view 1, view 2}. Returns x (2B,3,H,W) with views interleaved, r (B,6), latents (B,2,6), y (B).
function Dataset:batch(list)
  local items, r, states, y = {}, {}, {}, {}
  for i, pair in ipairs(list) do
    local object, v1, v2 = pair[1], pair[2], pair[3]
    local a, b = self:state(object, v1), self:state(object, v2)
    items[2 * i - 1], items[2 * i] = object * self.views + v1, object * self.views + v2
    r[i], states[i], y[i] = latents.action(a, b), { a, b }, self.labels[object + 1]
  end
  return { x = self:images(items), r = tycho.tensor(r), latents = tycho.tensor(states), y = tycho.tensor(y, 'i64') }
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
