-- 3DIEBench's layout: <root>/<synset>/<object>/image_<k>.jpg with latent_<k>.npy, and meta/{train,val}_{images,labels}.npy. Reads an index and
-- looks at every file that it names before anything is computed from them: images as far as that goes without decoding, latents to the last
-- number. A JPEG whose entropy-coded data is damaged is found later, by the decoder.
local lfs = require 'lfs'
local tycho = require 'tycho'
local loader = require 'tycho.data.loader'
local npy = require 'tycho.io.npy'
local progress = require 'tycho.train.progress'
local problems = require 'experiments.contextssl.problems'

local M = {}

local SAMPLE = 200 -- objects that the number of views and the form of the latents are taken from
local CHUNK = 4000 -- views looked at between two looks at the clock
local SHOWN_AFTER = 1 -- seconds of looking without a progress line
local FEWEST_LATENTS = 7 -- Euler angles, floor hue, light theta, light phi, light hue

-- ---- the index ----

local function exists(path) return lfs.attributes(path) ~= nil end

local function find_meta(data_dir, split)
  for _, folder in ipairs { data_dir .. '/meta', data_dir .. '/3DIEBench/meta' } do
    if exists(folder .. '/' .. split .. '_images.npy') then return folder end
  end
end

-- Whether data_dir holds an index of the split.
function M.has(data_dir, split) return find_meta(data_dir, split) ~= nil end

local function read_index(data_dir, split)
  local meta = find_meta(data_dir, split)
  if not meta then
    error(('data_dir=%s: expected meta/%s_images.npy or %s.pack in it; set data_dir to a folder in the 3DIEBench layout, or render one with '
      .. './tycho experiments/toy3d.lua out=%s'):format(data_dir, split, split, data_dir), 0)
  end
  local names, labels = npy.load(('%s/%s_images.npy'):format(meta, split)), npy.load(('%s/%s_labels.npy'):format(meta, split))
  if type(names) ~= 'table' or tycho.is_tensor(names) then
    error(('%s/%s_images.npy: expected an array of paths such as /synset/object/'):format(meta, split), 0)
  end
  if not tycho.is_tensor(labels) or labels.ndim ~= 1 or #names ~= labels:size(0) or #names == 0 then
    error(('%s: %s_images.npy has %d entries and %s_labels.npy %s; expected the same number, at least 1'):format(meta, split, #names, split,
      tycho.is_tensor(labels) and table.concat(labels.shape, ' x ') or 'no numbers'), 0)
  end
  for i, name in ipairs(names) do names[i] = '/' .. name:gsub('^/', ''):gsub('/$', '') end
  local root = exists(data_dir .. '/3DIEBench') and data_dir .. '/3DIEBench' or data_dir
  return { root = root, meta = meta, names = names, labels = labels:tolist() }
end

-- ---- what every object should look like ----

-- The most frequent key of counts; the largest of equals.
local function most_frequent(counts)
  local best
  for key, count in pairs(counts) do
    if not best or count > counts[best] or (count == counts[best] and key > best) then best = key end
  end
  return best
end

local function count_views(folder)
  local views = 0
  for name in lfs.dir(folder) do
    local k = name:match('^image_(%d+)%.jpg$')
    if k then views = math.max(views, k + 1) end
  end
  return views
end

-- The bytes before the numbers of a latent file, and how many numbers; nil where the file does not hold doubles as this machine does.
local function latent_form(path)
  local file = io.open(path, 'rb')
  local text = file and file:read('*a')
  if file then file:close() end
  local ok, x = pcall(npy.decode, text or '', path)
  if not ok or not tycho.is_tensor(x) or x.ndim ~= 1 then return nil end
  local n = x:size(0)
  local plain = x.dtype == 'f64' and npy.encode(x):sub(-8 * n) == text:sub(-8 * n)
  return ('%d %s'):format(n, plain and text:sub(1, -8 * n - 1) or ''), n
end

-- Number of views, number of latents and the head of latent files, as most of a sample of the objects have them.
local function find_form(index)
  local n = #index.names
  local views, forms, seen = {}, {}, 0
  for s = 0, math.min(n, SAMPLE) - 1 do
    local folder = index.root .. index.names[math.floor(s * n / math.min(n, SAMPLE)) + 1]
    if lfs.attributes(folder, 'mode') == 'directory' then
      seen = seen + 1
      local count, form = count_views(folder), latent_form(folder .. '/latent_0.npy')
      views[count] = (views[count] or 0) + 1
      if form then forms[form] = (forms[form] or 0) + 1 end
    end
  end
  if seen == 0 then
    error(('%s: none of the objects that the index names is there, such as %s; is the archive unpacked here?'):format(index.root, index.names[1]), 0)
  end
  local count, form = most_frequent(views), most_frequent(forms)
  if count < 2 then
    error(('%s%s: expected image_0.jpg, image_1.jpg, ... (at least two views), found %d'):format(index.root, index.names[1], count), 0)
  end
  local columns, head = (form or '0 '):match('^(%d+) (.*)$')
  if tonumber(columns) < FEWEST_LATENTS then
    error(('%s%s/latent_0.npy: expected at least %d numbers (Euler angles, floor hue, light direction, light hue), found %s'):format(index.root,
      index.names[1], FEWEST_LATENTS, form and columns or 'no such array'), 0)
  end
  return count, tonumber(columns), head ~= '' and head or nil
end

-- ---- every file ----

-- Reads the latents that are not like most files; fn(i, path, message) is told of each bad one.
local function read_odd_latents(self, paths, rows, errors, fn)
  for i, path in ipairs(paths) do
    if errors == nil or errors[i] then
      local ok, x = pcall(npy.load, path)
      local fits = ok and tycho.is_tensor(x) and x.ndim == 1 and x:size(0) == self.columns
      if fits then
        self.latents[rows[i]]:copy_(x)
      else
        fn(i, path, ok and ('%s: expected %d numbers'):format(path, self.columns) or x)
      end
    end
  end
end

local function is_finite(p, n)
  for i = 0, n - 1 do
    if p[i] - p[i] ~= 0 then return false end
  end
  return true
end

-- Looks at the views of objects first..last of the index (from 1).
local function check_views(self, found, first, last, threads)
  local images, latents, rows, objects = {}, {}, {}, {}
  for i = first, last do
    local folder = self.root .. self.names[i]
    if lfs.attributes(folder, 'mode') ~= 'directory' then
      found:add('absent objects', i, folder)
    else
      for k = 0, self.views - 1 do
        local at = #images + 1
        images[at], latents[at] = ('%s/image_%d.jpg'):format(folder, k), ('%s/latent_%d.npy'):format(folder, k)
        rows[at], objects[at] = (i - 1) * self.views + k, i
      end
    end
  end
  local errors = loader.start({ paths = images, into = self.sizes, rows = rows, threads = threads }):finish()
  for i, path in ipairs(images) do
    if errors[i] then
      found:add(exists(path) and 'damaged images' or 'missing images', objects[i], exists(path) and errors[i] or path)
    end
  end
  errors = self.head and loader.start({ paths = latents, into = self.latents, rows = rows, head = self.head, threads = threads }):finish()
  local unread = {}
  read_odd_latents(self, latents, rows, errors, function(i, path, message)
    unread[i] = true
    found:add(exists(path) and 'damaged latents' or 'missing latents', objects[i], exists(path) and message or path)
  end)
  for i, row in ipairs(rows) do
    if not unread[i] and not is_finite(self.latents:ptr() + row * self.columns, self.columns) then
      found:add('damaged latents', objects[i], latents[i] .. ': a number that is not finite')
    end
  end
end

local function check_labels(self, found, classes)
  for i, label in ipairs(self.labels) do
    if not (label >= 0 and label == math.floor(label) and label < (classes or math.huge)) then
      found:add('labels out of range', i, ('%s of %s, expected %s'):format(tostring(label), self.names[i],
        classes and ('0 to %d (classes=%d)'):format(classes - 1, classes) or 'a whole number >= 0'))
    end
  end
end

-- Keeps the objects that are not bad.
local function leave_out(self, bad)
  local names, labels, objects = {}, {}, {}
  for i, name in ipairs(self.names) do
    if not bad[i] then names[#names + 1], labels[#labels + 1], objects[#objects + 1] = name, self.labels[i], i - 1 end
  end
  local n = #self.names
  self.names, self.labels = names, labels
  self.latents = tycho.keep(self.latents:reshape({ n, self.views, self.columns }):index_select(objects):reshape { -1, self.columns })
  self.sizes = tycho.keep(self.sizes:reshape({ n, self.views }):index_select(objects):reshape { -1 })
end

-- Raises what makes no sense in options that say how a data set is read.
function M.check(options)
  local function expect(ok, key, what)
    if not ok then error(('%s must be %s, got %s'):format(key, what, tostring(options[key])), 0) end
  end
  local function whole(value, least) return type(value) == 'number' and value >= least and value == math.floor(value) end
  expect(whole(options.resolution, 1), 'resolution', 'a whole number >= 1')
  expect(options.workers == nil or whole(options.workers, 0), 'workers', 'a whole number >= 0')
  expect(options.classes == nil or whole(options.classes, 1), 'classes', 'a whole number >= 1')
  expect(options.on_bad == nil or options.on_bad == 'error' or options.on_bad == 'skip', 'on_bad', 'error or skip')
end

-- options: data_dir, split, classes (labels must be below it; nil: any), on_bad ('error', the default: bad objects are an error that counts them
-- all; 'skip': they are left out, and reported), workers (threads).
-- Returns {root, meta, names (such as /synset/object), labels, views, columns, latents f64 (N*views, columns), sizes i64 (N*views) of the image
-- files in bytes, indexed (number of objects in the index)}.
function M.read(options)
  local self = read_index(options.data_dir, options.split)
  self.indexed = #self.names
  self.views, self.columns, self.head = find_form(self)
  self.latents = tycho.keep(tycho.empty({ self.indexed * self.views, self.columns }, 'f64'))
  self.sizes = tycho.keep(tycho.empty({ self.indexed * self.views }, 'i64'))
  local found = problems()
  local step = math.max(1, math.floor(CHUNK / self.views))
  local line, shown = progress('checking ' .. options.split, self.indexed), false
  for first = 1, self.indexed, step do
    local last = math.min(first + step - 1, self.indexed)
    check_views(self, found, first, last, options.workers)
    if line:elapsed() > SHOWN_AFTER then
      shown = true
      line:update(last, ('%d bad'):format(found.count), self.views)
    end
  end
  if shown then line:finish(('checked %d images and latents of %s in %.0f s'):format(self.indexed * self.views, options.split, line:elapsed())) end
  check_labels(self, found, options.classes)
  if found.count > 0 then
    local what = ('%s: %d of the %d objects that %s_images.npy names cannot be used'):format(self.root, found.count, self.indexed, options.split)
    if options.on_bad ~= 'skip' then error(found:text(what .. '; mend them, or leave them out with on_bad=skip'), 0) end
    if found.count == self.indexed then error(found:text(what .. '; none is left'), 0) end
    io.stderr:write(found:text(what .. ' and are left out (on_bad=skip)'), '\n')
    leave_out(self, found.bad)
  end
  return self
end

return M
