-- What the demo shows: a table of R2 by context length, a plot of it, and results.json.
local plot = require 'tycho.plot'
local run_directory = require 'tycho.train.run'

local M = {}

local function number(x) return ('%6.3f'):format(x) end

local function section(title, scores, floor, lengths)
  local lines = { title, '            rotation context     colour context', '  tokens    rotation  colour     rotation  colour' }
  for _, c in ipairs(lengths) do
    local rot, color = scores.rot[c], scores.color[c]
    lines[#lines + 1] = ('  %6d      %s  %s       %s  %s'):format(c, number(rot.rotation), number(rot.color), number(color.rotation),
      number(color.color))
  end
  lines[#lines + 1] = ('   floor      %s  %s       %s  %s   (a constant predictor)'):format(number(floor.rotation), number(floor.color),
    number(floor.rotation), number(floor.color))
  return table.concat(lines, '\n')
end

-- What falls (the read-out) and what a freshly trained probe still finds.
local function sentence(result, lengths)
  local c = lengths[#lengths]
  local r, p = result.r2, result.r2_probe
  return ('Behind %d tokens of rotation context the read-out\'s colour R2 falls from %.2f to %.2f, behind colour context its rotation R2 from '
    .. '%.2f to %.2f (no parameter changes);\nprobes trained anew behind that context still find %.2f of the colour (%.2f without context) '
    .. 'and %.2f of the rotation (%.2f without).'):format(c, r.rot[0].color, r.rot[c].color, r.color[0].rotation, r.color[c].rotation,
    p.rot[c].color, p.rot[0].color, p.color[c].rotation, p.color[0].rotation)
end

function M.print(result, lengths)
  print('\nR2 on held-out objects by context length')
  print(section('\nTrained read-out (aug_predictor on z+): each view\'s own rotation and hues', result.r2, result.floor, lengths))
  print(section('\nFreshly trained pair probes on z+: the action between two views', result.r2_probe, result.floor_probe, lengths))
  print('\n' .. sentence(result, lengths) .. '\n')
end

local function keyed(scores)
  local out = {}
  for mode, by_length in pairs(scores) do
    out[mode] = {}
    for c, score in pairs(by_length) do out[mode][tostring(c)] = score end
  end
  return out
end

local function figure(result, lengths)
  local panels = {}
  for _, mode in ipairs { 'rot', 'color' } do
    local rotation, color = {}, {}
    local positions, labels = {}, {}
    for i, c in ipairs(lengths) do
      positions[i], labels[i] = i, tostring(c)
      rotation[i], color[i] = result.r2[mode][c].rotation, result.r2[mode][c].color
    end
    panels[#panels + 1] = {
      title = (mode == 'rot' and 'rotation' or 'colour') .. ' context', xlabel = 'context length (tokens)', ylabel = 'R2, trained read-out',
      x_ticks = { positions = positions, labels = labels }, ylim = { -0.3, 1 },
      series = { { name = 'rotation', x = positions, y = rotation }, { name = 'colour', x = positions, y = color } },
      hlines = { { y = result.floor.rotation, name = 'floor (rotation)' } },
    }
  end
  return plot.panels(panels)
end

-- Writes results.json, r2_by_context.svg and .png into the run's directory and prints where.
function M.write(result, config, run)
  local path = run:write('results.json', run_directory.encode({ r2 = keyed(result.r2), r2_probe = keyed(result.r2_probe),
    floor = result.floor, floor_probe = result.floor_probe, seed = config.seed }, true) .. '\n')
  local plots = figure(result, config.eval_ctxt)
  plots:svg(run.path .. '/r2_by_context.svg')
  plots:png(run.path .. '/r2_by_context.png')
  print(('plot: %s/r2_by_context.svg and .png'):format(run.path))
  print('results: ' .. path)
end

return M
