-- Image files and sizes: both decoders, Pillow's resize by its formula, damaged files, what is written.
local ffi = require 'ffi'
local lfs = require 'lfs'
local lib = require 'tycho.lib'
local file = require 'tycho.io.file'
local image = require 'tycho.io.image'
local tensor = require 'tycho.tensor'
local tycho = require 'tycho'
local files = require 'spec.files'
local shell = require 'spec.shell'

local golden = lib.root .. '/spec/golden/data/images/'
local path = files.folder() .. '/image'
local read = files.read

local function noise(h, w, seed)
  local x = tensor.empty({ h, w, 3 }, 'u8')
  local g = tycho.generator(seed)
  for i = 0, x:numel() - 1 do x:ptr()[i] = g:integer(256) end
  return x
end
local function bytes(x) return ffi.string(x:ptr(), x:numel()) end
local function write(text) return files.write(path, text) end

describe('images', function()
  local chosen = image.set_decoder('auto')
  teardown(function()
    os.remove(path)
    image.set_decoder(chosen)
  end)

  -- Pillow's Resample.c by its definition, one output at a time: weights from the triangle, rounded to 22 bits, sums of whole numbers.
  local function weights(i, size, out)
    local scale = size / out
    local support = math.max(scale, 1)
    local centre = (i + 0.5) * scale
    local first = math.max(0, math.floor(math.max(0, centre - support + 0.5)))
    local last = math.min(size, math.floor(centre + support + 0.5))
    local w, total = {}, 0
    for j = first, last - 1 do
      w[j] = math.max(0, 1 - math.abs((j - centre + 0.5) * (1 / support)))
      total = total + w[j]
    end
    for j, value in pairs(w) do w[j] = math.floor(0.5 + value / total * 2^22) end
    return w
  end
  local function along(x, n, size, out, at)
    if size == out then return x end
    local y = {}
    for i = 0, out - 1 do
      local w = weights(i, size, out)
      for k = 0, n - 1 do
        local sum = 2^21
        for j, value in pairs(w) do sum = sum + value * x[at(k, j, size)] end
        y[at(k, i, out)] = math.floor(sum / 2^22)
      end
    end
    return y
  end
  local function by_definition(x, ho, wo)
    local hi, wi = x:size(0), x:size(1)
    local p = {}
    for i = 0, x:numel() - 1 do p[i] = x:ptr()[i] end
    p = along(p, hi * 3, wi, wo, function(k, j, size) return (math.floor(k / 3) * size + j) * 3 + k % 3 end)
    p = along(p, wo * 3, hi, ho, function(k, j) return j * wo * 3 + k end)
    local y = tensor.empty({ ho, wo, 3 }, 'u8')
    for i = 0, y:numel() - 1 do y:ptr()[i] = p[i] end
    return y
  end

  it('are resized by the definition of the antialiased bilinear filter, any size to any', function()
    local g = tycho.generator(5)
    local cases = { { 1, 1, 1, 1 }, { 1, 1, 7, 5 }, { 9, 1, 2, 1 }, { 1, 40, 1, 3 }, { 2, 1, 2, 2 }, { 16, 16, 8, 8 }, { 33, 20, 33, 7 },
      { 20, 33, 7, 33 }, { 3, 90, 2, 1 }, { 64, 48, 5, 80 } }
    for _ = 1, 60 do cases[#cases + 1] = { 1 + g:integer(24), 1 + g:integer(24), 1 + g:integer(24), 1 + g:integer(24) } end
    for i, case in ipairs(cases) do
      local x = noise(case[1], case[2], i)
      assert(bytes(image.resize(x, case[3], case[4])) == bytes(by_definition(x, case[3], case[4])), table.concat(case, ' '))
    end
  end)
  it('of the same size come back as they are', function()
    local x = noise(5, 6, 1)
    assert.equal(bytes(x), bytes(image.resize(x, 5, 6)))
  end)
  it('are written and read again', function()
    local x = noise(17, 23, 2)
    image.save(path .. '.png', x)
    assert.equal(bytes(x), bytes(image.load(path .. '.png')))
    os.remove(path .. '.png')
  end)

  for _, decoder in ipairs { 'turbo', 'stb' } do
    describe('decoded by ' .. decoder, function()
      local ok, message = pcall(image.set_decoder, decoder)
      if not ok then return it('', function() pending(message) end) end
      before_each(function() image.set_decoder(decoder) end)

      it('say by what', function() assert.truthy(image.decoder():find(decoder, 1, true)) end)
      it('have the size that the header says', function()
        assert.same({ 133, 199 }, { image.size(golden .. '420_odd_199x133.jpg') })
        assert.same({ 133, 199, 3 }, image.load(golden .. '420_odd_199x133.jpg').shape)
      end)
      it('are refused with the file and the reason where they are damaged', function()
        local jpeg = read(golden .. '420_256.jpg')
        local scan = jpeg:find('\255\218', 1, true)
        for reason, text in pairs {
          ['an empty file'] = '', ['begins with the bytes 68 65 6c 6c'] = 'hello', ['truncated JPEG'] = jpeg:sub(1, -100),
          ['no frame header'] = '\255\216\255\217', ['1 to 100000000 pixels, got 256 x 0'] = jpeg:gsub('(\255\192...)..', '%1\0\0'),
          ['no image data'] = jpeg:sub(1, scan - 1) .. '\255\217',
          ['damaged or unsupported JPEG'] = jpeg:gsub('(\255\192.......)\3', '%1\2'),
        } do
          local fine, why = pcall(image.load, write(text), 8, 8)
          assert.is_false(fine)
          assert(why:find(path, 1, true) == 1 and why:find(reason, 1, true) and not why:find('\n'), why)
        end
        for _, other in ipairs { '/', '/nonexistent/x.jpg', '/dev/null' } do
          local fine, why = pcall(image.load, other, 8, 8)
          assert.is_false(fine)
          assert(why:find(other, 1, true) == 1, why)
        end
      end)
    end)
  end

  it('are written by way of a name that file.remove_leftovers knows', function()
    local temporary = ('%s.png.%d.tmp'):format(path, ffi.C.getpid())
    write 'left'
    assert(os.rename(path, temporary))
    file.remove_leftovers(path:match '^(.*)/')
    assert.is_nil(lfs.attributes(temporary))
    assert(lfs.mkdir(temporary)) -- in its way
    assert.is_false(pcall(image.save, path .. '.png', noise(2, 2, 1)))
    assert(lfs.rmdir(temporary))
  end)
  it('are refused where a bit of a PNG has changed, or its end is missing', function()
    local x = noise(9, 11, 3)
    image.save(path .. '.png', x)
    local png = read(path .. '.png')
    os.remove(path .. '.png')
    for at = 9, #png do -- behind the signature
      local fine, why = pcall(image.load, write(png:sub(1, at - 1) .. string.char(bit.bxor(png:byte(at), 4)) .. png:sub(at + 1)))
      assert.is_false(fine, tostring(at))
      assert(why:find(path, 1, true) == 1 and why:find('ed PNG (', 1, true), why)
    end
    assert.truthy(select(2, pcall(image.size, write(png:sub(1, -13)))):find('truncated PNG (no IEND chunk)', 1, true))
    assert.equal(bytes(x), bytes(image.load(write(png .. 'more'))))
  end)

  it('take the decoder from the environment', function()
    local function decoder(setting)
      return (shell(("TYCHO_JPEG=%s ./tycho -e \"print(require('tycho.io.image').decoder())\""):format(setting)))
    end
    assert.equal('stb_image\n', decoder 'stb')
    assert.equal("tycho: TYCHO_JPEG=fast: the JPEG decoder must be auto, turbo or stb, got fast\n", decoder 'fast')
  end)
end)
