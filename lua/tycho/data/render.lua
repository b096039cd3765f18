-- render(parts, latents, size, supersample): u8 images (n,size,size,3) of one object, see csrc/render.c.
-- parts: list of { kind = 'ellipsoid' or 'box', centre = {x,y,z}, half = {x,y,z}, albedo = {r,g,b} }.
-- latents: f64 (n,7): Euler angles x y z (extrinsic, radians), floor hue, light theta, light phi, light hue.
-- supersample: rays per pixel axis.
local ffi = require 'ffi'
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'

local kinds = { ellipsoid = 0, box = 1 }

return function(parts, latents, size, supersample)
  local list = ffi.new('ty_part[?]', #parts)
  for i, part in ipairs(parts) do
    list[i - 1] = { kinds[part.kind] or lib.raise(("render: kind must be 'ellipsoid' or 'box', got '%s'"):format(tostring(part.kind))),
      part.centre, part.half, part.albedo }
  end
  local y = tensor.empty({ latents:size(0), size, size, 3 }, 'u8')
  lib.check(lib.cpu.ty_render(y.c, list, #parts, latents.c, supersample))
  return y
end
