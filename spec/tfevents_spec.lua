-- TensorBoard's event files, read back by a parser that shares nothing with the writer, and by TensorBoard itself where it is installed.
local ffi = require 'ffi'
local bit = require 'bit'
local lfs = require 'lfs'
local run_directory = require 'tycho.train.run'
local tfevents = require 'tycho.io.tfevents'
local failure = require 'spec.failure'
local files = require 'spec.files'
local says = require 'spec.says'
local shell = require 'spec.shell'

local folder = files.folder()
local read, write = files.read, files.write

-- Bit by bit, highest power first: another road to the same remainder.
local function crc32c(text)
  local register = 2^32 - 1
  for i = 1, #text do
    for k = 0, 7 do
      local input = bit.band(bit.rshift(text:byte(i), k), 1)
      local top = register % 2
      register = math.floor(register / 2)
      if top ~= input then register = bit.bxor(register, 0x82F63B78) % 2^32 end
    end
  end
  return 2^32 - 1 - register
end

local function u32(text, at) return text:byte(at) + 256 * (text:byte(at + 1) + 256 * (text:byte(at + 2) + 256 * text:byte(at + 3))) end
local function number(ctype, text) return ffi.cast('const ' .. ctype .. ' *', text)[0] end

-- The masked checksum, in arithmetic instead of rotations.
local function masked(text)
  local c = crc32c(text)
  return (math.floor(c / 2^15) + c % 2^15 * 2^17 + 0xa282ead8) % 2^32
end

-- Fields of a protobuf message: list of {number, value}.
local function fields(text)
  local out, at = {}, 1
  local function varint()
    local value, factor = 0, 1
    repeat
      local byte = text:byte(at)
      value, factor, at = value + byte % 128 * factor, factor * 128, at + 1
    until byte < 128
    return value
  end
  while at <= #text do
    local key = varint()
    local wire, value = key % 8
    if wire == 0 then
      value = varint()
    else
      local size = wire == 1 and 8 or wire == 5 and 4 or varint()
      value = text:sub(at, at + size - 1)
      assert(#value == size)
      at = at + size
    end
    out[#out + 1] = { math.floor(key / 8), value }
  end
  return out
end

-- Events of a file: list of {time, step, version, scalars, restart}.
local function events(text)
  local list, at = {}, 1
  while at <= #text do
    local length = u32(text, at)
    assert.equal(0, u32(text, at + 4))
    assert.equal(masked(text:sub(at, at + 7)), u32(text, at + 8))
    local message = text:sub(at + 12, at + 11 + length)
    assert.equal(masked(message), u32(text, at + 12 + length))
    local event = { step = 0 }
    for _, field in ipairs(fields(message)) do
      if field[1] == 1 then event.time = number('double', field[2]) end
      if field[1] == 2 then event.step = field[2] end
      if field[1] == 3 then event.version = field[2] end
      if field[1] == 7 then event.restart = fields(field[2])[1][2] end
      if field[1] == 5 then
        event.scalars = {}
        for _, entry in ipairs(fields(field[2])) do
          local value = fields(entry[2])
          event.scalars[value[1][2]] = number('float', value[2][2])
        end
      end
    end
    list[#list + 1] = event
    at = at + 16 + length
  end
  return list
end

describe('event files', function()

  it('have Castagnoli\'s checksum', function()
    assert.equal(0xe3069283, tfevents.crc32c '123456789')
    assert.equal(0, tfevents.crc32c '')
    for _, text in ipairs { 'a', '\0\255\128', ('xyz'):rep(100) } do assert.equal(crc32c(text), tfevents.crc32c(text)) end
  end)

  it('hold every scalar of a run under its step', function()
    local run = run_directory.create(folder, 'spec', { config = 'a: 1\n' })
    run:log { epoch = 1, iteration = 300, loss = 2.5, ['rot_r2/c0'] = -0.25 }
    run:log { epoch = 2, iteration = 70000, loss = 0 / 0, lr = 1e-12 }
    local path = tfevents.find(run.path)
    assert(path:match('/events%.out%.tfevents%.%d+%.'))
    local text = read(path)
    -- The head of every event file that TensorBoard itself writes.
    assert.equal('1800000000000000a37f4b22', (text:sub(1, 12):gsub('.', function(c) return ('%02x'):format(c:byte()) end)))
    local list = events(text)
    assert.equal(3, #list)
    assert.equal('brain.Event:2', list[1].version)
    assert(math.abs(list[1].time - os.time()) < 100)
    assert.same({ 300, 70000 }, { list[2].step, list[3].step })
    assert.same({ epoch = 1, iteration = 300, loss = 2.5, ['rot_r2/c0'] = -0.25 }, list[2].scalars)
    assert(list[3].scalars.loss ~= list[3].scalars.loss)
    assert(math.abs(list[3].scalars.lr / 1e-12 - 1) < 1e-6)
  end)

  it('that cannot be written are told of', function()
    local full = folder .. '/full'
    assert(lfs.mkdir(full) and lfs.link('/dev/full', full .. '/events.out.tfevents', true))
    says(failure(tfevents.add, full, 1, { loss = 1 }), ('cannot write %s/events.out.tfevents: No space left on device'):format(full))
  end)

  it('lose half a record and forget what is logged again when a run is taken up', function()
    local run = run_directory.create(folder, 'spec', { config = 'a: 1\n' })
    for i = 1, 3 do run:log { epoch = i, iteration = 10 * i, loss = i } end
    local path = tfevents.find(run.path)
    write(path, read(path):sub(1, -6))
    local again = run_directory.open(run.path)
    again:trim(function(row) return row.iteration <= 20 end)
    again:log { epoch = 3, iteration = 30, loss = 33 }
    local list = events(read(path))
    assert.equal(5, #list)
    assert.same({ 1, 21 }, { list[4].restart, list[4].step })
    assert.equal(33, list[5].scalars.loss)
  end)

  it('are read by TensorBoard', function()
    if os.execute('python3 -c "import tensorboard" 2>/dev/null') ~= 0 then return pending 'python3 has no tensorboard' end
    local run = run_directory.create(folder, 'spec', { config = 'a: 1\n' })
    for i = 1, 3 do run:log { epoch = i, iteration = 10 * i, loss = i / 4 } end
    run_directory.open(run.path):trim(function(row) return row.iteration <= 20 end)
    tfevents.add(run.path, 30, { loss = 9 })
    write(folder .. '/read.py', [[
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1])
events.Reload()
print(' '.join('%d:%g' % (s.step, s.value) for s in events.Scalars('loss')))
]])
    assert.equal('10:0.25 20:0.5 30:9\n', (shell(('python3 %s/read.py %s 2>/dev/null'):format(folder, run.path))))
  end)
end)
