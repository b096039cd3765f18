-- Parameters of the golden runs: value[i] = scale * base[(i + offset) mod 1021], see the README beside the data. rule.rule says what is added.
local tycho = require 'tycho'
local lfs = require 'lfs'
local pt = require 'tycho.io.pt'
local npz = require 'tycho.io.npz'

local forms = {
  ['scale*p'] = function(p) return p end,
  ['1+scale*p'] = function(p) return p + 1 end,
  ['1+scale*|p|'] = function(p) return p + 1 end,
}

local M = {}

-- base: f32 (1021); rule: {shape, offset, scale, rule}.
local function values(base, rule)
  local form = forms[rule.rule]
  if not form then error(("pattern rule '%s' is unknown"):format(tostring(rule.rule)), 0) end
  local t = tycho.empty(rule.shape)
  local p, b, n, length = t:ptr(), base:ptr(), t:numel(), base:numel()
  local absolute = rule.rule:match('|p|') ~= nil
  for i = 0, n - 1 do
    local value = b[(i + rule.offset) % length]
    p[i] = rule.scale * (absolute and math.abs(value) or value)
  end
  return form(t)
end

-- Table name -> tensor of the checkpoint PATH.pt, or of its copy PATH.weights.npz.
function M.from_checkpoint(path)
  if lfs.attributes(path .. '.weights.npz') then return npz.load(path .. '.weights.npz') end
  local dict, out = pt.load(path .. '.pt'), {}
  for i, key in ipairs(dict.keys) do out[key] = dict.values[i] end
  return out
end

return setmetatable(M, { __call = function(_, base, rule) return values(base, rule) end })
