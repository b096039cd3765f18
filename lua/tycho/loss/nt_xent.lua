-- nt_xent(p, temperature, options): normalised temperature-scaled cross entropy (SimCLR, Chen et al. 2020, eq. 1) as the reference
-- implementation computes it. p (2B,D): rows 2k and 2k+1 are each other's positive. Mean over the 2B rows.
-- options.clamp (default true): similarities are clamped from below at 1e-7, which stops the gradient of negative ones.
-- Under tycho.autocast too all of it is float32: float16 has no number as small as that.
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'
local autocast = require 'tycho.autocast'
local check_options = require 'tycho.options'

local function loss(p, temperature, options)
  local rows = p:size(0)
  if rows % 2 ~= 0 then lib.raise(('nt_xent: rows must come in pairs, got shape %s'):format(tensor.shape_text(p))) end
  p = p:normalize()
  local similarity = p:matmul(p:transpose(0, 1))
  if check_options('nt_xent', options, { clamp = true }).clamp ~= false then similarity = similarity:clamp_min(1e-7) end
  local itself, partner = tensor.zeros({ rows, rows }, p.dtype, p.device), tensor.empty({ rows }, 'i64')
  itself:diagonal():fill_(-1e5)
  for i = 0, rows - 1 do partner:ptr()[i] = i % 2 == 0 and i + 1 or i - 1 end
  return (similarity / temperature + itself):cross_entropy(partner:to(p.device))
end

return function(p, temperature, options) return autocast.run('off', loss, p, temperature, options) end
