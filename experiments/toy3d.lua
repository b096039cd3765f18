-- Renders toy3d, a small data set in 3DIEBench's layout: objects of several classes under random poses, floor and light hues.
--   ./tycho experiments/toy3d.lua out=DIR key=value ...
local tycho = require 'tycho'
local config = require 'tycho.config'
local toy3d = require 'experiments.contextssl.toy3d'

local settings = config.parse({
  out = '',           -- the folder to make; it must not exist, or hold an earlier rendering
  objects = 1000,     -- train objects
  val_objects = 200,  -- held-out objects
  views = 20,         -- views of each object
  size = 48,          -- pixels, height and width
  classes = 8,        -- object i belongs to class i modulo this
  seed = 0,           -- everything follows from it
  supersample = 2,    -- rays per pixel axis
  quality = 95,       -- of the JPEG files
  overwrite = false,  -- replace an earlier rendering
  workers = 0,        -- threads; 0: all cores
}, arg)
local cores = tycho.threads()
if settings.workers ~= math.floor(settings.workers) or settings.workers < 0 or settings.workers > cores then
  error(('workers must be a whole number from 0 (all cores) to %d, got %s'):format(cores, settings.workers), 0)
end
if settings.workers > 0 then tycho.set_threads(settings.workers) end

if toy3d.render(settings) then
  print(('data_dir=%s'):format(settings.out))
else
  print(('%s is there already; overwrite=true renders it anew'):format(settings.out))
end
