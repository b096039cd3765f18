-- Pictures of what the representation takes for alike, as in figure 1 of the paper: held-out images, and beside each its nearest train images behind
-- no context, a rotation context and a colour context.
local tycho = require 'tycho'
local image = require 'tycho.io.image'
local neighbours = require 'experiments.contextssl.neighbours'
local report = require 'tycho.runs.report'

local M = {}

local ROWS, COLUMNS = 6, 6 -- held-out images; neighbours of each
local GAP = 2 -- pixels between images; twice that beside the held-out one
local MOST = 600 -- images of each split that take part
local captions = { none = 'no context', rot = 'a rotation context', color = 'a colour context' }

-- Copies an image of a normalised batch (n,3,H,W) into canvas u8 (height,width,3) at a place, in its own colours.
local function paste(canvas, batch, index, dataset, top, left)
  local pixels, size, width = tycho.empty({ 3, dataset.resolution, dataset.resolution }), dataset.resolution, canvas:size(1)
  pixels:copy_(batch[index])
  local from, to = pixels:ptr(), canvas:ptr()
  for c = 0, 2 do
    local mean, std = dataset.mean[c + 1], dataset.std[c + 1]
    for y = 0, size - 1 do
      for x = 0, size - 1 do
        local value = (from[(c * size + y) * size + x] * std + mean) * 255 + 0.5
        to[((top + y) * width + left + x) * 3 + c] = math.max(0, math.min(255, value))
      end
    end
  end
end

-- The grid of one mode: u8 (height,width,3) on white.
local function grid(found, mode, train, val, chosen)
  local size = val.resolution
  local canvas = tycho.full({ ROWS * (size + GAP) - GAP, (COLUMNS + 1) * (size + GAP) + GAP, 3 }, 255, 'u8')
  for row, query in ipairs(chosen) do
    local items = {}
    for i, near in ipairs(found.nearest[mode][query]) do items[i] = found.bank[near + 1] end
    local top = (row - 1) * (size + GAP)
    paste(canvas, val:images { found.queries[query] }, 0, val, top, 0)
    local batch = train:images(items)
    for i = 1, #items do paste(canvas, batch, i - 1, train, top, i * (size + GAP) + GAP) end
  end
  return canvas
end

-- Writes neighbours_<mode>.jpg into the run's directory and lists them for its report.
function M.draw(run, model, train, val, config)
  local found = neighbours.find(model, train, val, config, MOST, COLUMNS)
  local chosen, count = {}, #found.queries
  for i = 1, math.min(ROWS, count) do chosen[i] = 1 + math.floor((i - 1) * count / math.min(ROWS, count)) end
  for _, mode in ipairs { 'none', 'rot', 'color' } do
    local name = ('neighbours_%s.jpg'):format(mode)
    tycho.scope(function() image.save(('%s/%s'):format(run.path, name), grid(found, mode, train, val, chosen), 90) end)
    report.add_figure(run.path, name, ('Held-out images (left) and their %d nearest train images behind %s'):format(COLUMNS, captions[mode]))
  end
end

return M
