-- 3DIEBench's latents as the method uses them. Quaternions are (x, y, z, w) of extrinsic xyz Euler angles: q = q_z q_y q_x.
local M = {}

local FLOOR_HUE, LIGHT_HUE = 3, 6 -- columns of latent_k.npy, counted from 0

local function multiply(ax, ay, az, aw, bx, by, bz, bw)
  return aw * bx + ax * bw + ay * bz - az * by, aw * by - ax * bz + ay * bw + az * bx, aw * bz + ax * by - ay * bx + az * bw,
    aw * bw - ax * bx - ay * by - az * bz
end

-- Euler angles in radians -> x, y, z, w.
function M.quaternion(ex, ey, ez)
  local sx, cx = math.sin(ex / 2), math.cos(ex / 2)
  local sy, cy = math.sin(ey / 2), math.cos(ey / 2)
  local sz, cz = math.sin(ez / 2), math.cos(ez / 2)
  local x, y, z, w = multiply(0, sy, 0, cy, sx, 0, 0, cx)
  return multiply(0, 0, sz, cz, x, y, z, w)
end

-- a^-1 b, the inverse being the conjugate.
function M.relative(a, b)
  return multiply(-a[1], -a[2], -a[3], a[4], b[1], b[2], b[3], b[4])
end

-- State of a view from its latents (a pointer or list indexed from 0, angles rounded to float32): {x, y, z, w, floor hue, light hue}.
function M.state(latent)
  local x, y, z, w = M.quaternion(latent[0], latent[1], latent[2])
  return { x, y, z, w, latent[FLOOR_HUE], latent[LIGHT_HUE] }
end

-- Action that leads from state a to state b: {relative quaternion (4), floor hue difference, light hue difference}.
function M.action(a, b)
  local x, y, z, w = M.relative(a, b)
  return { x, y, z, w, b[5] - a[5], b[6] - a[6] }
end

return M
