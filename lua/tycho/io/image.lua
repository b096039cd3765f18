-- JPEG and PNG files, and the bilinear resize of Pillow up to version 12. Images are u8 tensors (H,W,3); PNGs are also written from (H,W,1) and
-- (H,W,4).
-- TYCHO_JPEG=turbo or stb in the environment says what decodes JPEG files; otherwise libjpeg-turbo where it is installed, or stb_image.
local ffi = require 'ffi'
local autocast = require 'tycho.autocast'
local lib = require 'tycho.lib'
local loader = require 'tycho.data.loader'
local op = require 'tycho.op'
local tensor = require 'tycho.tensor'

local M = {}

-- A bad file is the person's, not the program's: its error has no position.
local function check_file(status)
  if status ~= 0 then error(ffi.string(lib.cpu.ty_error()), 0) end
end

local decoders = { auto = 'TY_JPEG_AUTO', turbo = 'TY_JPEG_TURBO', stb = 'TY_JPEG_STB' }
local chosen = 'auto'

-- name: auto, turbo (libjpeg-turbo) or stb (stb_image). For the whole process. Returns the name before.
function M.set_decoder(name)
  if not decoders[name] then error(('the JPEG decoder must be auto, turbo or stb, got %s'):format(tostring(name)), 0) end
  check_file(lib.cpu.ty_set_jpeg_decoder(lib.cpu[decoders[name]]))
  local before = chosen
  chosen = name
  return before
end

-- What decodes JPEG files, for records of what a result came from.
function M.decoder() return ffi.string(lib.cpu.ty_jpeg_decoder()) end

-- Height and width of a file, without decoding it.
function M.size(path)
  local size = ffi.new('int32_t[2]')
  check_file(lib.cpu.ty_image_size(size, size + 1, path))
  return size[0], size[1]
end

-- Decodes a list of files on all cores to RGB, resized to height x width: (n,H,W,3).
function M.load_all(paths, height, width)
  return loader.start({ paths = paths, into = tensor.empty({ #paths, height, width, 3 }, 'u8'), threads = 1024 }):wait()
end

-- One file at its own size, or resized to height x width: (H,W,3).
function M.load(path, height, width)
  if not height then height, width = M.size(path) end
  return loader.start({ paths = { path }, into = tensor.empty({ 1, height, width, 3 }, 'u8'), threads = 0 }):wait()[0]
end

function M.resize(x, height, width)
  op.check_tensor('resize', x, 'x')
  local y = tensor.empty({ height, width, 3 }, 'u8')
  lib.check(lib.cpu.ty_resize(y.c, x.c))
  return y
end

-- (x / 255 - mean) / std per channel as an image (m,3,H,W), in float32, or in 16 bit under tycho.autocast, as the convolution that reads it makes it.
-- x: u8 (n,H,W,3); mean, std: lists of 3; index: int64 (m) picks and orders rows of x, nil for all.
function M.normalize(x, mean, std, index)
  op.check_tensor('normalize', x, 'x')
  op.check_tensor('normalize', index, 'index?')
  local y = tensor.empty_image({ index and index:numel() or x:size(0), 3, x:size(1), x:size(2) }, autocast.dtype() or 'f32', x.device)
  lib.check(y.lib.ty_normalize_images(y.c, x.c, index and index.c, ffi.new('double[3]', mean), ffi.new('double[3]', std)), y.lib)
  return y
end

-- Asks the system to read rows index (int64) of an x over a mapped file ahead of their use.
function M.read_ahead(x, index) lib.check(lib.cpu.ty_read_ahead(x.c, index.c)) end

-- Writes path whole or not at all; its ending says whether as PNG or JPEG. quality 1 to 100, default 95; chroma is subsampled up to 90.
function M.save(path, x, quality)
  op.check_tensor('image.save', x, 'x')
  local ending = path:lower():match('%.(%w+)$')
  if ending == 'png' then
    check_file(lib.cpu.ty_write_png(path, x.c))
  elseif ending == 'jpg' or ending == 'jpeg' then
    check_file(lib.cpu.ty_write_jpeg(path, x.c, quality or 95))
  else
    lib.raise(('image.save: %s must end in .png, .jpg or .jpeg'):format(path))
  end
end

do
  local name = os.getenv('TYCHO_JPEG')
  if name and name ~= '' then
    local ok, message = pcall(M.set_decoder, name)
    if not ok then error('TYCHO_JPEG=' .. name .. ': ' .. message, 0) end
  end
end

return M
