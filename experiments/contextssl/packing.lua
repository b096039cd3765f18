-- Packs a split of a tree in 3DIEBench's layout: every image decoded and resized once, into one file that training maps (tycho.data.pack). What
-- the decoder cannot read is found here, before any training.
local lfs = require 'lfs'
local tycho = require 'tycho'
local hash = require 'tycho.hash'
local image = require 'tycho.io.image'
local loader = require 'tycho.data.loader'
local pack = require 'tycho.data.pack'
local progress = require 'tycho.train.progress'
local problems = require 'experiments.contextssl.problems'
local tree = require 'experiments.contextssl.tree'

local M = {}

local CHUNK = 64e6 -- bytes of images decoded at a time

-- A word for each object that changes with what it is packed from.
local function identities(source)
  local list = {}
  local sizes, rows = source.sizes, source.latents
  for i, name in ipairs(source.names) do
    local first = (i - 1) * source.views
    list[i] = hash(table.concat({ name, source.labels[i], hash(sizes:ptr() + first, source.views * 8),
      hash(rows:ptr() + first * source.columns, source.views * source.columns * 8) }, ' '))
  end
  return list
end

-- Starts to decode objects first..first+count-1 (from 1) into pixels.
local function start(source, pixels, first, count, threads)
  local paths = {}
  for i = first, first + count - 1 do
    for k = 0, source.views - 1 do paths[#paths + 1] = ('%s%s/image_%d.jpg'):format(source.root, source.names[i], k) end
  end
  return loader.start { paths = paths, into = pixels, threads = threads }
end

-- Hands the decoded objects to the writer. Once an object is bad and bad ones are errors, nothing more is written.
local function hand_over(source, writer, found, job, first, count, on_bad)
  local errors = job:finish()
  for i = first, first + count - 1 do
    for k = 1, source.views do
      local message = errors[(i - first) * source.views + k]
      if message then found:add('damaged images', i, message) end
    end
    if not found.bad[i] and (found.count == 0 or on_bad == 'skip') then
      writer:add(job.into:narrow(0, (i - first) * source.views, source.views))
    elseif on_bad == 'skip' then
      writer:add(nil)
    end
  end
end

local function write(source, writer, settings, line)
  local found = problems()
  local views, size = source.views, settings.resolution
  local step = math.max(1, math.floor(CHUNK / (views * size * size * 3)))
  local buffers = {}
  for i = 1, 2 do buffers[i] = tycho.empty({ step * views, size, size, 3 }, 'u8') end
  local total = #source.names
  local function begin(first)
    if first > total then return nil end
    local count = math.min(step, total - first + 1)
    buffers[1], buffers[2] = buffers[2], buffers[1]
    return { job = start(source, buffers[1], first, count, settings.workers), first = first, count = count }
  end
  local this = begin(writer.settled + 1)
  while this do
    local following = begin(this.first + this.count)
    hand_over(source, writer, found, this.job, this.first, this.count, settings.on_bad)
    line:update(this.first + this.count - 1, ('objects, %d bad'):format(found.count), views)
    this = following
  end
  if found.count == 0 then return end
  local what = ('%s: %d of the %d objects of %s cannot be decoded'):format(source.root, found.count, total, settings.split)
  if settings.on_bad ~= 'skip' then
    error(found:text(('%s; mend them, or leave them out with on_bad=skip; %d objects are packed already, and the same command goes on from there')
      :format(what, writer.settled)), 0)
  end
  io.stderr:write('\n', found:text(what .. ' and are left out (on_bad=skip)'), '\n')
end

-- What the objects that were kept have besides images.
local function tail(source, writer, split)
  local names, labels, kept = {}, {}, {}
  for k, i in ipairs(writer.kept) do names[k], labels[k], kept[k] = source.names[i], source.labels[i], i - 1 end
  local rows = source.latents:reshape { #source.names, source.views, source.columns }
  return {
    names = names, labels = tycho.tensor(labels, 'i64'), rows = rows:index_select(kept):reshape { -1, source.columns },
    source = ('3DIEBench layout, split %s: %d objects, %d left out'):format(split, source.indexed, source.indexed - #names),
  }
end

-- Packs settings.split of settings.data_dir into path. settings: resolution, classes, workers, on_bad (see tree.lua). Returns the number of
-- objects, of those left out, and of bytes; an error keeps what is packed so far for the next call.
function M.run(settings, path)
  tree.check(settings)
  local source = tree.read { data_dir = settings.data_dir, split = settings.split, classes = settings.classes, on_bad = settings.on_bad,
    workers = settings.workers }
  local words = identities(source)
  local looking = progress('checking what is packed', #words)
  local writer = pack.create(path, { views = source.views, height = settings.resolution, width = settings.resolution, columns = source.columns,
    decoder = image.decoder() }, words, function(i) looking:update(i) end)
  local there = writer.settled
  local line = progress('packing ' .. settings.split, #words, there)
  local ok, message = xpcall(function()
    write(source, writer, settings, line)
    if #writer.kept == 0 then error(('%s: no object is left to pack'):format(source.root), 0) end
    writer:finish(tail(source, writer, settings.split))
  end, tycho.lib.remember)
  if not ok then
    writer:close()
    error(message, 0)
  end
  line:finish(('packed %d objects in %.0f s'):format(#words - there, line:elapsed()))
  return #writer.kept, source.indexed - #writer.kept, lfs.attributes(path, 'size')
end

return M
