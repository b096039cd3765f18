-- Images and grids of images: in the terminal as half blocks, as PNG and as SVG. Takes tensors (H,W), (H,W,3) and (3,H,W), and lists or batches of
-- them; u8 as it is, real numbers from the smallest (black) to the largest (white) of all. NaN is red.
local ffi = require 'ffi'
local file = require 'tycho.io.file'
local image = require 'tycho.io.image'
local markup = require 'tycho.io.markup'
local tensor = require 'tycho.tensor'

local RAMP = ' .:-=+*#%@' -- for terminals without colours
local GAP = 2 -- pixels between the images of a grid

local M = {}

local Picture = {}
Picture.__index = Picture

local function fail(message, ...) error(('imshow: ' .. message):format(...), 0) end

-- Height, width and a function (row, column, channel) -> element number of one image.
local function access(x)
  local c = x.c
  local function stride(i) return tonumber(c.stride[i]) end
  if x.ndim == 2 then
    local rows, columns = stride(0), stride(1)
    return x:size(0), x:size(1), function(row, column) return row * rows + column * columns end
  end
  local order = x.ndim == 3 and ((x:size(2) == 3 and { 0, 1, 2 }) or (x:size(0) == 3 and { 1, 2, 0 }) or (x:size(0) == 1 and { 1, 2 })
    or (x:size(2) == 1 and { 0, 1 }))
  if not order then fail('expected an image (H, W), (H, W, 3) or (3, H, W), got %s', tensor.shape_text(x)) end
  local rows, columns, channels = stride(order[1]), stride(order[2]), order[3] and stride(order[3]) or 0
  return x:size(order[1]), x:size(order[2]), function(row, column, channel) return row * rows + column * columns + channel * channels end
end

-- Smallest and largest finite number of all images.
local function range(images)
  local low, high, count = math.huge, -math.huge, 0
  for _, x in ipairs(images) do
    local height, width, at = access(x)
    local p, read = x:ptr(), x.type.read
    for row = 0, height - 1 do
      for column = 0, width - 1 do
        for channel = 0, x.ndim == 2 and 0 or 2 do
          local v = read(p, at(row, column, channel))
          if v - v == 0 then low, high, count = math.min(low, v), math.max(high, v), count + 1 end
        end
      end
    end
  end
  if count == 0 then fail('there is nothing to show: no number is finite') end
  return low, high > low and high or low + 1
end

-- Copies an image into pixels (H,W,3) at a place.
local function put(pixels, x, top, left, low, high)
  local height, width, at = access(x)
  local p, read, out, stride = x:ptr(), x.type.read, pixels:ptr(), pixels:size(1) * 3
  for row = 0, height - 1 do
    for column = 0, width - 1 do
      local to = out + (top + row) * stride + (left + column) * 3
      for channel = 0, 2 do
        local v = read(p, at(row, column, channel))
        if v ~= v then
          to[0], to[1], to[2] = 255, 0, 0
          break
        end
        to[channel] = math.max(0, math.min(255, math.floor((v - low) / (high - low) * 255 + 0.5)))
      end
    end
  end
end

local function listed(images)
  if not tensor.is_tensor(images) then
    if type(images) ~= 'table' or not tensor.is_tensor(images[1]) then fail('expected a tensor or a list of tensors, got %s', type(images)) end
    return images
  end
  if images.ndim ~= 4 then return { images } end
  local out = {}
  for i = 0, images:size(0) - 1 do out[i + 1] = images[i]:detach() end
  if #out == 0 then fail('there is nothing to show: the batch is empty') end
  return out
end

-- Images side by side, row after row. columns: images in a row, default about as many as rows.
function M.grid(images, columns)
  images = listed(images)
  columns = columns or math.ceil(math.sqrt(#images))
  local height, width = 0, 0
  for _, x in ipairs(images) do
    if x:numel() == 0 then fail('there is nothing to show: shape %s', tensor.shape_text(x)) end
    local h, w = access(x)
    height, width = math.max(height, h), math.max(width, w)
  end
  local low, high = 0, 255
  if images[1].dtype ~= 'u8' then low, high = range(images) end
  local rows = math.ceil(#images / columns)
  local used = math.min(columns, #images)
  local pixels = tensor.full({ rows * (height + GAP) - GAP, used * (width + GAP) - GAP, 3 }, #images > 1 and 255 or 0, 'u8')
  for i, x in ipairs(images) do
    put(pixels, x, math.floor((i - 1) / columns) * (height + GAP), (i - 1) % columns * (width + GAP), low, high)
  end
  return setmetatable({ pixels = pixels }, Picture)
end

-- One image, or a batch as a grid.
function M.imshow(x) return M.grid(x) end

-- ---- showing ----

-- The mean colour of the pixels that a cell stands for.
local function mean(p, stride, top, bottom, left, right)
  local r, g, b, n = 0, 0, 0, 0
  for row = top, math.max(bottom - 1, top) do
    for column = left, math.max(right - 1, left) do
      local at = p + row * stride + column * 3
      r, g, b, n = r + at[0], g + at[1], b + at[2], n + 1
    end
  end
  return math.floor(r / n), math.floor(g / n), math.floor(b / n)
end

-- As text of at most so many columns. options: {columns, colors}.
function Picture:text(options)
  local height, width, p = self.pixels:size(0), self.pixels:size(1), self.pixels:ptr()
  local columns = math.min(options.columns, width)
  local rows = math.max(2, math.floor(height * columns / width + 0.5)) -- half rows
  local stride, lines = width * 3, {}
  local function cell(row, column)
    return mean(p, stride, math.floor(row * height / rows), math.floor((row + 1) * height / rows), math.floor(column * width / columns),
      math.floor((column + 1) * width / columns))
  end
  for row = 0, rows - 1, 2 do
    local out = {}
    for column = 0, columns - 1 do
      local r, g, b = cell(row, column)
      local r2, g2, b2 = cell(math.min(row + 1, rows - 1), column)
      if options.colors then
        out[#out + 1] = ('\27[38;2;%d;%d;%d;48;2;%d;%d;%dm\226\150\128'):format(r, g, b, r2, g2, b2)
      else
        local light = (r + g + b + r2 + g2 + b2) / 6 / 256
        local k = math.floor(light * #RAMP) + 1
        out[#out + 1] = RAMP:sub(k, k)
      end
    end
    lines[#lines + 1] = table.concat(out) .. (options.colors and '\27[0m' or '')
  end
  return table.concat(lines, '\n')
end

function Picture:__tostring()
  local terminal = require 'tycho.repl.terminal'
  return self:text { columns = (terminal.size()) - 1, colors = terminal.has_colors(1) }
end

-- The pixels enlarged by a whole number.
local function enlarged(pixels, scale)
  if scale == 1 then return pixels end
  local height, width = pixels:size(0), pixels:size(1)
  local out = tensor.empty({ height * scale, width * scale, 3 }, 'u8')
  local from, to = pixels:ptr(), out:ptr()
  for row = 0, height * scale - 1 do
    for column = 0, width * scale - 1 do
      ffi.copy(to + (row * width * scale + column) * 3, from + (math.floor(row / scale) * width + math.floor(column / scale)) * 3, 3)
    end
  end
  return out
end

-- scale: pixels of the file for one of the image, a whole number, default 1.
function Picture:png(path, scale) image.save(path, enlarged(self.pixels, scale or 1)) end

-- The image inside an SVG, pixels as squares. size: of a pixel, default 4.
function Picture:svg(path, size)
  size = size or 4
  local temporary = os.tmpname() .. '.png'
  self:png(temporary)
  local data = file.read(temporary)
  os.remove(temporary)
  os.remove((temporary:gsub('%.png$', '')))
  local height, width = self.pixels:size(0) * size, self.pixels:size(1) * size
  file.write(path, function(out)
    out:write(('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d">\n'):format(width, height, width, height))
    out:write(('<image width="%d" height="%d" style="image-rendering:pixelated" href="data:image/png;base64,%s"/>\n</svg>\n'):format(width,
      height, markup.base64(data)))
  end)
end

return M
