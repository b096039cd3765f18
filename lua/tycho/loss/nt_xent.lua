-- nt_xent(p, temperature, options): normalised temperature-scaled cross entropy (SimCLR, Chen et al. 2020, eq. 1) as the reference
-- implementation computes it. p (2B,D): rows 2k and 2k+1 are each other's positive. Mean over the 2B rows.
-- options.clamp (default true): similarities are clamped from below at 1e-7, which stops the gradient of negative ones.
-- Under tycho.autocast too all of it is float32: float16 has no number as small as that.
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'
local autocast = require 'tycho.autocast'
local check_options = require 'tycho.options'

local function loss(p, temperature, options)
  local is_clamped = check_options('nt_xent', options, { clamp = true }).clamp ~= false
  if type(temperature) ~= 'number' or not (temperature > 0) then
    lib.raise('nt_xent: expected a temperature above 0, got ' .. tostring(temperature))
  end
  if p:size(0) % 2 ~= 0 then lib.raise(('nt_xent: rows must come in pairs, got shape %s'):format(tensor.shape_text(p))) end
  p = p:normalize()
  return p:matmul(p:transpose(0, 1)):pair_cross_entropy(temperature, is_clamped and 1e-7 or nil)
end

return function(p, temperature, options) return autocast.run('off', loss, p, temperature, options) end
