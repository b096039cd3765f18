-- Packs a data set in 3DIEBench's layout into one file a split, decoded and resized, that training maps: data_dir=OUT then.
--   ./tycho experiments/pack.lua data_dir=DIR out=OUT key=value ...       OUT/train.pack and OUT/val.pack; a killed run goes on
--   ./tycho experiments/pack.lua out=OUT verify=true                      compares every checksum
local lfs = require 'lfs'
local config = require 'tycho.config'
local pack = require 'tycho.data.pack'
local packing = require 'experiments.contextssl.packing'
local progress = require 'tycho.train.progress'
local file = require 'tycho.io.file'
local tree = require 'experiments.contextssl.tree'

local settings = config.parse({
  data_dir = '',      -- folder in 3DIEBench's layout
  out = '',           -- folder of the packed files
  resolution = 128,   -- images are resized to this many pixels a side
  classes = 55,       -- labels are 0 to classes - 1
  on_bad = 'error',   -- what is done about objects with missing or damaged files or odd labels: error, or skip to leave them out
  workers = 16,       -- decoding threads, at most the machine's cores
  overwrite = false,  -- replace packed files, and begin anew where a run was killed
  verify = false,     -- compare the checksums of the files in out instead of packing
}, arg)
local out = settings.out:gsub('(.)/+$', '%1')
if out == '' then error('out is not set: write out=FOLDER, where the packed files go', 0) end

-- Calls fn(split, path) for both splits; there must be one at least for which it is true.
local function each_split(fn, expected)
  local any = false
  for _, split in ipairs { 'train', 'val' } do any = fn(split, ('%s/%s.pack'):format(out, split)) or any end
  if not any then error(expected, 0) end
end

local function verify(_, path)
  if not lfs.attributes(path) then return false end
  local line
  local found = pack.verify(path, function(i, n)
    line = line or progress('verifying', n)
    line:update(i, path)
  end)
  line:finish()
  print(('%s: the checksums of all %d objects are right'):format(path, found.header.objects))
  return true
end

local function pack_split(split, path)
  if not tree.has(settings.data_dir, split) then return false end
  if settings.overwrite then pack.remove(path) end
  if lfs.attributes(path) then
    local header = pack.open(path).header
    if header.height ~= settings.resolution or header.width ~= settings.resolution then
      error(('%s holds images of %d x %d, not resolution=%d; choose another out=, or overwrite=true'):format(path, header.height, header.width,
        settings.resolution), 0)
    end
    print(('%s is there already, with %d objects decoded by %s; overwrite=true packs it anew'):format(path, header.objects, header.decoder))
    return true
  end
  settings.split = split
  local objects, left_out, bytes = packing.run(settings, path)
  print(('%s: %d objects, %d left out, %.1f MB'):format(path, objects, left_out, bytes / 1e6))
  return true
end

if settings.verify then
  each_split(verify, ('%s: expected train.pack or val.pack in it'):format(out))
else
  config.require_path(settings, 'data_dir')
  file.make_folders(out)
  each_split(pack_split, ('data_dir=%s: expected meta/train_images.npy or meta/val_images.npy in it'):format(settings.data_dir))
end
