-- toy3d: a small data set in 3DIEBench's layout, drawn by Tycho's own renderer. Every object has a white nose at +x, a dark fin at
-- +z and a coloured wing at +y, so that its pose can be seen; the body and what hangs on it tell the class. Makes no claim to realism.
local lfs = require 'lfs'
local tycho = require 'tycho'
local image = require 'tycho.io.image'
local json = require 'tycho.io.json'
local npy = require 'tycho.io.npy'
local progress = require 'tycho.train.progress'
local render = require 'tycho.data.render'

local M = {}

-- Streams of the seed. An object depends on its split and number alone: a larger rendering holds the smaller one.
local CLASS, OBJECT = 0, { train = 1e6, val = 1e9 }

-- ---- objects ----

-- Kind and half axes of the body, by class; further classes take them again in other colours and with other things attached.
local bodies = {
  { 'ellipsoid', 0.54, 0.20, 0.19 }, -- cigar
  { 'box', 0.42, 0.34, 0.09 },       -- slab
  { 'ellipsoid', 0.33, 0.33, 0.33 }, -- ball
  { 'box', 0.19, 0.20, 0.42 },       -- tower
  { 'ellipsoid', 0.44, 0.42, 0.13 }, -- disc
  { 'box', 0.50, 0.15, 0.15 },       -- beam
  { 'ellipsoid', 0.22, 0.24, 0.48 }, -- egg
  { 'box', 0.27, 0.27, 0.27 },       -- cube
}

local function hsv(hue, saturation, value)
  local function channel(n)
    local k = (n + 6 * hue) % 6
    return value * (1 - saturation * math.max(0, math.min(k, 4 - k, 1)))
  end
  return { channel(5), channel(3), channel(1) }
end

-- The parts of class number i of n, before an object's own variation. All classes share the frame.
local function class_parts(i, n, seed)
  local g = tycho.generator(seed, CLASS + i)
  local function between(low, high) return low + (high - low) * g:uniform() end
  local function either() return g:uniform() < 0.5 and 'ellipsoid' or 'box' end
  local function part(kind, centre, half, albedo) return { kind = kind, centre = centre, half = half, albedo = albedo } end
  local kind, bx, by, bz = unpack(bodies[i % #bodies + 1])
  local hue = i / n
  local paint, trim = hsv(hue, 0.65, 0.75), hsv(hue, 0.5, 0.45)
  local nose = { between(0.16, 0.26), between(0.14, 0.22), between(0.14, 0.22) }
  local fin = { between(0.12, 0.26), between(0.05, 0.10), between(0.22, 0.34) }
  local wing = { between(0.09, 0.20), between(0.22, 0.34), between(0.05, 0.10) }
  local parts = {
    part(kind, { 0, 0, 0 }, { bx, by, bz }, paint),
    part(either(), { bx + 0.6 * nose[1] - 0.02, 0, 0 }, nose, { 1, 1, 1 }),
    part(either(), { between(-0.25, 0.05), 0, bz + 0.7 * fin[3] }, fin, { 0.12, 0.12, 0.12 }),
    part(either(), { between(-0.15, 0.15), by + 0.7 * wing[2], 0 }, wing, hsv(hue + between(0.4, 0.6), 0.8, 0.9)),
  }
  -- Tail, pod and keel stand or are left out by the bits of the class number.
  local r = between(0.10, 0.15)
  if i % 2 == 1 then table.insert(parts, part(either(), { -bx - 0.5 * r, 0, 0 }, { r, r, r }, trim)) end
  if math.floor(i / 2) % 2 == 1 then table.insert(parts, part(either(), { 0, -by - 0.5 * r, 0 }, { 1.6 * r, r, r }, trim)) end
  if math.floor(i / 4) % 2 == 1 then table.insert(parts, part(either(), { 0, 0, -bz - 0.5 * r }, { r, 1.3 * r, r }, trim)) end
  return parts
end

-- One object of a class: small changes of place, size and colour.
local function object_parts(class, g)
  local function vary(values, change)
    local out = {}
    for i, v in ipairs(values) do out[i] = change(v) end
    return out
  end
  local parts = {}
  for i, part in ipairs(class) do
    parts[i] = {
      kind = part.kind,
      centre = vary({ part.centre[1] - 0.08, part.centre[2] - 0.05, part.centre[3] - 0.05 }, function(v) return v + 0.03 * g:normal() end),
      half = vary(part.half, function(v) return v * math.exp(0.09 * g:normal()) end),
      albedo = vary(part.albedo, function(v) return math.min(1, v * math.exp(0.06 * g:normal())) end),
    }
  end
  return parts
end

-- f64 (views,7), uniform: Euler angles in +-pi/2, floor hue in [0,1], light theta in [0,pi/4], phi in [0,2 pi], light hue in [0,1].
local function draw_latents(views, g)
  local rows = {}
  for k = 1, views do
    local row = {}
    for i = 1, 3 do row[i] = (g:uniform() - 0.5) * math.pi end
    row[4], row[5], row[6], row[7] = g:uniform(), g:uniform() * math.pi / 4, g:uniform() * 2 * math.pi, g:uniform()
    rows[k] = row
  end
  return tycho.tensor(rows, 'f64')
end

-- Object number i of a split: its folder below the tree, class, views u8 (views,size,size,3) and latents f64 (views,7).
function M.object(settings, split, i)
  local g = tycho.generator(settings.seed, OBJECT[split] + i)
  local label = i % settings.classes
  local id = {}
  for k = 1, 8 do id[k] = ('%04x'):format(g:integer(65536)) end
  local parts = object_parts(class_parts(label, settings.classes, settings.seed), g)
  local latents = draw_latents(settings.views, g)
  return {
    folder = ('/%08d/%s/'):format(9000001 + label, table.concat(id)),
    label = label,
    images = render(parts, latents, settings.size, settings.supersample),
    latents = latents,
  }
end

-- ---- files ----

local MARK = 'toy3d.json' -- says that a folder is ours and what it holds

local function make_folder(path)
  local above = path:match('^(.+)/[^/]+$')
  if above and not lfs.attributes(above) then make_folder(above) end
  if lfs.attributes(path, 'mode') == 'directory' then return end
  local ok, why = lfs.mkdir(path)
  if not ok then error(('cannot make the folder %s: %s'):format(path, why), 0) end
end

local function remove_tree(path)
  if lfs.symlinkattributes(path, 'mode') == 'directory' then
    for name in lfs.dir(path) do
      if name ~= '.' and name ~= '..' then remove_tree(path .. '/' .. name) end
    end
  end
  local ok, why = os.remove(path)
  if not ok then error('cannot remove ' .. why, 0) end
end

local function is_empty(path)
  for name in lfs.dir(path) do
    if name ~= '.' and name ~= '..' then return false end
  end
  return true
end

-- Removes a folder only if a rendering made it, so that overwrite=true cannot cost anybody other files.
local function remove_rendering(path)
  local mode = lfs.attributes(path, 'mode') or lfs.symlinkattributes(path, 'mode')
  if not mode then return end
  if mode ~= 'directory' or not (lfs.attributes(path .. '/' .. MARK) or is_empty(path)) then
    error(('%s exists and is no toy3d rendering (no %s in it); choose another out=, or move it away'):format(path, MARK), 0)
  end
  remove_tree(path)
end

-- The whole rendering appears under its name at once, so its files need no syncing one by one.
local function write_latent(path, latent)
  local file, why = io.open(path, 'wb')
  local ok = file
  if file then
    ok, why = file:write(npy.encode(latent))
    local closed, reason = file:close()
    if ok and not closed then ok, why = nil, reason end
  end
  if not ok then error(('cannot write %s: %s'):format(path, why), 0) end
end

local function write_object(root, object, settings)
  local folder = root .. object.folder
  make_folder(folder:sub(1, -2))
  for k = 0, settings.views - 1 do
    image.save(('%simage_%d.jpg'):format(folder, k), object.images[k], settings.quality)
    write_latent(('%slatent_%d.npy'):format(folder, k), object.latents[k])
  end
end

local function write_all(folder, settings)
  make_folder(folder .. '/meta')
  make_folder(folder .. '/3DIEBench')
  json.save(folder .. '/' .. MARK, settings)
  local line = progress('rendering', settings.objects + settings.val_objects)
  local done = 0
  for _, split in ipairs { 'train', 'val' } do
    local folders, labels = {}, {}
    for i = 0, settings[split == 'train' and 'objects' or 'val_objects'] - 1 do
      tycho.scope(function()
        local object = M.object(settings, split, i)
        write_object(folder .. '/3DIEBench', object, settings)
        folders[i + 1], labels[i + 1] = object.folder, object.label
      end)
      done = done + 1
      line:update(done, 'objects', settings.views)
      if tycho.interrupted() then error('rendering interrupted; nothing was kept', 0) end
    end
    npy.save_strings(('%s/meta/%s_images.npy'):format(folder, split), folders)
    npy.save(('%s/meta/%s_labels.npy'):format(folder, split), tycho.tensor(labels, 'i64'))
  end
  line:finish(('rendered %d objects, %d views each, in %.0f s (%.0f images/s)'):format(done, settings.views, line:elapsed(),
    done * settings.views / line:elapsed()))
end

-- ---- the data set ----

local defaults = { objects = 1000, val_objects = 200, views = 20, size = 48, classes = 8, seed = 0, supersample = 2, quality = 95 }
local least = { objects = 1, val_objects = 1, views = 2, size = 8, classes = 1, seed = 0, supersample = 1, quality = 1 }
local most = { size = 1024, supersample = 4, quality = 100 }

local function check(given)
  local settings = {}
  for key, default in pairs(defaults) do
    local value = given[key]
    if value == nil then value = default end
    local low, high = least[key], most[key] or 1e6
    if type(value) ~= 'number' or value ~= math.floor(value) or value < low or value > high then
      error(('%s must be a whole number from %d to %d, got %s'):format(key, low, high, tostring(value)), 0)
    end
    settings[key] = value
  end
  if type(given.out) ~= 'string' or given.out:match('^/*$') then error('out is not set: write out=FOLDER, where the data set goes', 0) end
  return settings, (given.out:gsub('/+$', ''))
end

-- Says where a rendering at `out` differs from settings, or nil.
local function difference(out, settings)
  local there = json.load(out .. '/' .. MARK)
  for _, key in ipairs { 'objects', 'val_objects', 'views', 'size', 'classes', 'seed', 'supersample', 'quality' } do
    if there[key] ~= settings[key] then return ('%s is %s, not %s'):format(key, tostring(there[key]), tostring(settings[key])) end
  end
end

-- Renders a data set to settings.out: 3DIEBench/<synset>/<object>/{image,latent}_<k> and meta/. Everything follows from seed.
-- settings: out, and what is to differ from the defaults above; overwrite = true replaces an earlier rendering.
-- Returns true, or false when the same data set is there already. An interrupted or failed rendering leaves nothing at out.
function M.render(given)
  local settings, out = check(given)
  if lfs.attributes(out .. '/' .. MARK) and not given.overwrite then
    local other = difference(out, settings)
    if other then error(('%s holds another toy3d rendering (%s); choose another out=, or overwrite=true'):format(out, other), 0) end
    return false
  end
  if not lfs.attributes(out .. '/' .. MARK) then remove_rendering(out) end
  local partial = out .. '.partial'
  remove_rendering(partial)
  tycho.on_interrupt('flag')
  local ok, message = xpcall(function() write_all(partial, settings) end, tycho.lib.remember)
  tycho.on_interrupt(nil)
  if ok then
    remove_rendering(out)
    ok, message = os.rename(partial, out)
  end
  if not ok then
    pcall(remove_rendering, partial)
    error(message, 0)
  end
  return true
end

return M
