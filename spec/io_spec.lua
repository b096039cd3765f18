-- Files: recorded ones to the last bit, round trips of ours, hostile ones refused.
local ffi = require 'ffi'
local lfs = require 'lfs'
local tensor = require 'tycho.tensor'
local lib = require 'tycho.lib'
local tycho = require 'tycho'
local file = require 'tycho.io.file'
local json = require 'tycho.io.json'
local npy = require 'tycho.io.npy'
local npz = require 'tycho.io.npz'
local parts = require 'tycho.io.parts'
local pt = require 'tycho.io.pt'
local safetensors = require 'tycho.io.safetensors'
local tensors = require 'tycho.io.tensors'
local zip = require 'tycho.io.zip'
local failure = require 'spec.failure'
local files = require 'spec.files'
local says = require 'spec.says'
local shell = require 'spec.shell'
ffi.cdef 'int raise(int signal);'

local folder = files.folder()
local function path(name) return folder .. '/' .. name end
local write, read = files.inside(folder)

-- fn(...) must raise one sentence that contains every one of the words.
local function assert_refuses(words, fn, ...)
  local message = failure(fn, ...)
  assert.is_string(message)
  assert.is_nil(message:find('\n'))
  says(message, unpack(words))
end

local function assert_same(a, b)
  assert.are.equal(a.dtype, b.dtype)
  assert.are.same(a.shape, b.shape)
  assert.are.same(a:tolist(), b:tolist())
end

local function is_mapped(name)
  local maps = assert(io.open('/proc/self/maps')):read('*a')
  return maps:find(path(name), 1, true) ~= nil
end

-- Reading by read() must take no memory, give x, keep the file mapped as long as the tensor lives, and keep changes from the file.
local function assert_stays_in_file(name, x, reading)
  local live = tycho.memory().registered
  local got = reading()
  assert.are.equal(live, tycho.memory().registered)
  assert.is_true(is_mapped(name))
  assert.are.equal(x:sum():item(), got:sum():item())
  got:fill_(0)
  assert.are.equal(0, got:sum():item())
  assert.are.equal(x:sum():item(), reading():sum():item())
  got = nil -- luacheck: ignore
  tycho.collect()
  assert.is_false(is_mapped(name))
end

local function samples()
  return {
    f32 = tensor.tensor { { 1, -2.5, 3 }, { 4, 5, 0 } },
    f64 = tensor.tensor({ 1 / 3, math.huge }, 'f64'),
    i64 = tensor.tensor({ { { -7 } } }, 'i64'),
    i32 = tensor.tensor({ -2^31, 2^31 - 1 }, 'i32'),
    u8 = tensor.tensor({ 0, 255 }, 'u8'),
    scalar = tensor.tensor(2.5),
    empty = tensor.empty { 0, 3 },
  }
end

describe('files', function()
  after_each(function() os.execute(('rm -rf %s/*'):format(folder)) end)

  describe('recorded', function()
    require 'spec.parity.ptfiles'(lib.root .. '/spec/golden/ptfiles', function(name, found, _, ok)
      it(name, function() assert.is_true(ok, tostring(found)) end)
    end)
  end)

  describe('written', function()
    it('whole, or not at all', function()
      write('kept', 'old')
      assert_refuses({ 'no more' }, file.write, path 'kept', function(out)
        out:write('new')
        error('no more', 0)
      end)
      assert.are.equal('old', read 'kept')
      file.write(path 'kept', function(out) out:write('new') end)
      assert.are.equal('new', read 'kept')
      local names = {}
      for name in lfs.dir(folder) do names[#names + 1] = name end
      assert.are.equal(3, #names) -- ., .. and the file
    end)
    it('nowhere but to a file', function()
      assert_refuses({ 'cannot write', 'directory' }, npy.save, folder, tensor.empty { 1 })
      assert_refuses({ 'cannot write', 'char device' }, npy.save, '/dev/null', tensor.empty { 1 })
      assert_refuses({ 'cannot write', 'No such' }, npy.save, path 'none/x.npy', tensor.empty { 1 })
    end)
    it('without a trace when the disk is full or Ctrl-C comes', function()
      local said = shell(("ulimit -f 100; ./tycho -e 'tycho.io.npy.save(\"%s\", tycho.ones{1000, 1000})'"):format(path 'large'))
      assert.are.equal(('tycho: %s: cannot write: File too large\n'):format(path 'large'), said)
      lib.on_interrupt('raise')
      assert_refuses({ 'interrupted' }, file.write, path 'x', function(out)
        ffi.C.raise(2)
        out:write('x')
      end)
      lib.on_interrupt(nil)
      for name in lfs.dir(folder) do assert.truthy(name == '.' or name == '..', name) end
    end)
    it('read from files only', function()
      assert_refuses({ 'none.npy', 'No such' }, npy.load, path 'none.npy')
      assert_refuses({ folder }, pt.load, folder)
      assert(os.execute('mkfifo ' .. path 'pipe.npy') == 0)
      assert_refuses({ 'pipe.npy: it is a folder or a pipe, not a file' }, npy.load, path 'pipe.npy') -- and does not wait for who writes to it
      os.remove(path 'pipe.npy')
    end)
  end)

  describe('npy', function()
    it('keeps every dtype and shape', function()
      for name, x in pairs(samples()) do
        npy.save(path(name), x)
        assert_same(x, npy.load(path(name)))
        assert_same(x, npy.decode(npy.encode(x)))
      end
    end)
    it('writes row-major data at a multiple of 64 bytes', function()
      npy.save(path 'x', tensor.tensor { { 1, 2 }, { 3, 4 } }:transpose(0, 1))
      assert_same(tensor.tensor { { 1, 3 }, { 2, 4 } }, npy.load(path 'x'))
      assert.are.equal(0, (#read 'x' - 16) % 64)
    end)
    it('keeps strings', function()
      local list = { '/a', '', 'ünï/çø∂é/𝄞' }
      npy.save_strings(path 'x', list)
      assert.are.same(list, npy.load(path 'x'))
      npy.save_strings(path 'x', {})
      assert.are.same({}, npy.load(path 'x'))
      assert_refuses({ 'UTF-8' }, npy.save_strings, path 'x', { '\255' })
      assert_refuses({ 'UTF-8' }, npy.save_strings, path 'x', { '\237\160\128' }) -- a surrogate
      assert_refuses({ path 'x', 'list of strings', 'number' }, npy.save_strings, path 'x', { 1 })
      assert_refuses({ path 'x', 'found a tensor in the list' }, npy.save_strings, path 'x', { 'a', tensor.ones { 1 } })
      assert_refuses({ path 'x', 'has its sizes in field shape: found 4 strings for shape (2)' }, npy.save_strings, path 'x',
        { { 'a', 'b' }, { 'c', 'd' } })
      local nested = { { 'a', 'b' }, { 'c', '' }, { 'd', 'e' }, shape = { 3, 2 } }
      npz.save(path 'x', { nested = nested, list = list, single = { 'q', shape = {} } })
      assert.are.same({ nested = nested, list = list, single = { 'q', shape = {} } }, npz.load(path 'x'))
    end)
    it('makes a NaN of any payload a number', function()
      local head = npy.encode(tensor.empty { 4 }):sub(1, -17)
      local x = npy.decode(head .. ('\255'):rep(8) .. '\0\0\160\255\0\0\128\255'):tolist()
      for i = 1, 3 do
        assert.are.equal('number', type(x[i]))
        assert.is_true(x[i] ~= x[i])
      end
      assert.are.equal(-math.huge, x[4])
      local y = npy.decode(npy.encode(tensor.empty({ 1 }, 'f64')):sub(1, -9) .. ('\255'):rep(8)):item()
      assert.is_true(type(y) == 'number' and y ~= y)
      -- Every tag that such a pattern can hold; read as strings or tables, they would crash the collector.
      local tags = {}
      for i = 0, 31 do tags[i + 1] = file.put_u32(0xff801001 + i * 0x40000) end
      local all = npy.decode(npy.encode(tensor.empty { 32 }):sub(1, -129) .. table.concat(tags))
      jit.off(all.tolist, true)
      local list, text = all:tolist(), tostring(all)
      jit.on(all.tolist, true)
      collectgarbage()
      for i = 1, 32 do assert.is_true(type(list[i]) == 'number' and list[i] ~= list[i]) end
      assert.truthy(text:find('32 NaN', 1, true))
    end)
    it('reads strings in time that grows with the file, and refuses shapes that hold none of it', function()
      local function strings(description, shape, data)
        local header = ("{'descr': '%s', 'fortran_order': False, 'shape': %s}"):format(description, shape)
        return npy.decode('\147NUMPY\1\0' .. file.put_u16(#header) .. header .. data, 'here')
      end
      local data, start = ('\0'):rep(1e5) .. 'x', os.clock()
      assert.is_true(strings('|S100001', '(1,)', data)[1] == data)
      assert.is_true(os.clock() - start < 1)
      assert.are.same({ '', 'a' }, strings('|S2', '(2,)', '\0\0a\0'))
      for description, shape in pairs { ['<U5'] = '(1099511627776, 0)', ['|S0'] = '(1024, 1025)', ['<f4'] = '(0, 9007199254740992)' } do
        assert_refuses({ 'here: ', 'shape (', 'not plausible' }, strings, description, shape, '')
      end
    end)
    it('refuses u8 values that int64 cannot hold', function()
      local text = npy.encode(tensor.tensor({ -1 }, 'i64')):gsub('<i8', '<u8')
      assert_refuses({ 'here', '2^63' }, npy.decode, text, 'here')
    end)
  end)

  describe('a mapped file', function()
    it('is a storage whose changes stay in memory, not counted as live, unmapped with its last tensor', function()
      write('x', ('\0'):rep(64) .. npy.encode(tensor.tensor { 1, 2, 3 }):sub(-12))
      local live = tycho.memory().registered
      local storage, size = file.map(path 'x')
      local x = tensor.from_storage(storage, 64, { 3 }, 'f32')
      assert.are.equal(76, size)
      assert.are.same({ 1, 2, 3 }, x:tolist())
      x:fill_(7)
      assert.are.same({ 7, 7, 7 }, x:tolist())
      assert.are.equal(live, tycho.memory().registered)
      assert.are.same({ 1, 2, 3 }, tensor.from_storage(file.map(path 'x'), 64, { 3 }, 'f32'):tolist())
      assert.is_true(is_mapped 'x')
      storage, x = nil, nil -- luacheck: ignore
      tycho.collect()
      assert.is_false(is_mapped 'x')
    end)
    it('holds the tensors of every format when it is large, without a copy', function()
      local x = tensor.arange(300000)
      for format, write_it in pairs {
        npy = function(name) npy.save(name, x) end, npz = function(name) npz.save(name, { x = x }) end,
        pt = function(name) pt.save(name, pt.dict { { 'x', x } }) end, safetensors = function(name) safetensors.save(name, { x = x }) end,
      } do
        local name = 'x.' .. format
        write_it(path(name))
        assert_stays_in_file(name, x, function()
          local value = tensors.load(path(name))
          return tensor.is_tensor(value) and value or value:get 'x'
        end)
      end
    end)
    it('is let go where it is small, or its tensors are compressed or unaligned', function()
      local x = tensor.arange(300000)
      npy.save(path 'small', x:narrow(0, 0, 100))
      npz.save(path 'deflated', { x = x }, { compress = true })
      safetensors.save(path 'aligned', { x = x })
      local bytes = read 'aligned'
      local length = tonumber(file.u64(ffi.cast('const uint8_t *', bytes)))
      write('unaligned', file.put_u64(length + 1) .. bytes:sub(9, 8 + length) .. ' ' .. bytes:sub(9 + length))
      local got = { npy.load(path 'small'), npz.load(path 'deflated').x, safetensors.load(path 'unaligned'):get 'x' }
      for _, name in ipairs { 'small', 'deflated', 'unaligned' } do assert.is_false(is_mapped(name)) end
      assert.are.equal(4950, got[1]:sum():item())
      assert_same(x, got[2])
      assert_same(x, got[3])
    end)
  end)

  describe('npz', function()
    it('keeps tables of tensors, stored and deflated', function()
      local all = samples()
      all['a/b'] = tensor.zeros { 100, 100 }
      npz.save(path 'stored', all)
      npz.save(path 'deflated', all, { compress = true })
      assert.is_true(#read 'deflated' < #read 'stored' / 4)
      for _, name in ipairs { 'stored', 'deflated' } do
        local got = npz.load(path(name))
        for key, x in pairs(all) do assert_same(x, got[key]) end
      end
    end)
    it('refuses damaged entries', function()
      npz.save(path 'x', { a = tensor.zeros { 100 } }, { compress = true })
      local bytes = read 'x'
      local at = bytes:find('a.npy', 1, true) + 12
      write('x', bytes:sub(1, at - 1) .. string.char(bytes:byte(at) == 7 and 8 or 7) .. bytes:sub(at + 1))
      assert_refuses({ path 'x', 'a.npy', 'damaged' }, npz.load, path 'x')
    end)
  end)

  describe('zip', function()
    it('refuses names that it has no place for', function()
      for _, name in ipairs { ('n'):rep(65532), 'a\255' } do
        assert_refuses({ path 'x', 'at most 65535 bytes of UTF-8' }, npz.save, path 'x', { [name] = tensor.ones { 1 } })
      end
      npz.save(path 'x', { [('n'):rep(65531)] = tensor.ones { 1 } })
      assert.are.equal(('n'):rep(65531), (next(npz.load(path 'x'))))
    end)
    it('refuses two entries that share bytes, and encryption', function()
      zip.write(path 'x', function(archive)
        archive:add('a', ('x'):rep(100))
        archive:add('b', ('x'):rep(100))
      end)
      local bytes = read 'x'
      local second = bytes:find('PK\1\2', bytes:find('PK\1\2', 1, true) + 1, true)
      write('x', bytes:sub(1, second + 41) .. '\0\0\0\0' .. bytes:sub(second + 46))
      assert_refuses({ 'overlaps' }, file.with_mapping, path 'x', function(p, size) return zip.open(p, size, 'x') end)
      local first = bytes:find('PK\1\2', 1, true)
      write('x', bytes:sub(1, first + 7) .. '\1' .. bytes:sub(first + 9))
      assert_refuses({ 'encrypted' }, file.with_mapping, path 'x', function(p, size) return zip.open(p, size, 'x') end)
    end)
  end)

  describe('pt', function()
    it('keeps tensors, containers and their order', function()
      local x = samples()
      local value = pt.dict({ { 'model', pt.dict { { 'w', x.f32 }, { 'b', x.scalar }, { 'tied', x.f32 } } }, { 'z', x.empty },
        { 'epoch', 17 }, { 'lr', 0.1 }, { 'large', 2^40 }, { 'exact', 9007199254740993LL }, { 'low', -math.huge }, { 3, 'key' },
        { 'none', pt.none }, { 'flags', { true, false } }, { 'betas', pt.tuple { 0.9, 0.999 } }, { 'plain', { b = 2, a = 1 } } }, false)
      pt.save(path 'x.pt', value)
      local got = pt.load(path 'x.pt')
      assert.are.same(value.keys, got.keys)
      assert.is_false(got.ordered)
      assert.is_true(got:get('model').ordered)
      assert.are.same({ 'w', 'b', 'tied' }, got:get('model').keys)
      assert_same(x.f32, got:get('model'):get('w'))
      assert_same(x.f32, got:get('model'):get('tied'))
      assert_same(x.scalar, got:get('model'):get('b'))
      assert_same(x.empty, got:get('z'))
      for _, key in ipairs { 'epoch', 'lr', 'large', 'low', 3, 'none' } do assert.are.equal(value:get(key), got:get(key)) end
      assert.is_true(got:get('exact') == 9007199254740993LL)
      assert.are.same({ true, false }, got:get('flags'))
      assert.is_true(pt.is_tuple(got:get('betas')))
      assert.are.equal(0.999, got:get('betas')[2])
      assert.are.same({ 'a', 'b' }, got:get('plain').keys)
      local names = {}
      for name in got:get('model'):pairs() do names[#names + 1] = name end
      assert.are.same({ 'w', 'b', 'tied' }, names)
    end)
    it('tells keys apart by what they are', function()
      local keys = { pt.tuple { 'a', 'b' }, pt.tuple { 'a\0sb' }, pt.tuple { 'a' }, '\0(sa)', 5LL, '\0005LL', 5, pt.tuple { 5 }, pt.tuple { '5' },
        pt.tuple { pt.tuple { 5 } }, pt.tuple {}, true, 'true' }
      local list = {}
      for i, key in ipairs(keys) do list[i] = { key, i } end
      local d = pt.dict(list)
      assert.are.equal(#keys, d:len())
      assert.are.same({ 1, 5, 10 }, { d:get(pt.tuple { 'a', 'b' }), d:get(5LL), d:get(pt.tuple { pt.tuple { 5 } }) })
      local shared = pt.tuple { 1 }
      for _ = 1, 90 do shared = pt.tuple { shared, shared } end
      assert.is_true(d:set(shared, 'deep'))
      local endless = pt.tuple {}
      endless[1], endless[2] = endless, endless
      assert.is_false(d:set(endless, 1))
      assert_refuses({ 'Dict:set: w has no value' }, d.set, d, 'w', nil)
    end)
    it('keeps every dtype', function()
      for name, x in pairs(samples()) do
        pt.save(path 'x.pt', pt.dict { { name, x } })
        assert_same(x, pt.load(path 'x.pt'):get(name))
      end
    end)
    it('keeps tensors that share a storage in the file sharing one', function()
      for _, layout in ipairs { 'zip', 'legacy' } do
        local got = pt.load(('%s/spec/golden/ptfiles/valid/shared_storage_%s.pt'):format(lib.root, layout))
        got:get('a'):fill_(7)
        assert.are.same({ 7, 7, 7 }, got:get('whole'):narrow(0, 0, 3):tolist())
        assert.are.same({ 7, 7, 7, 7, 7 }, got:get('b'):select(0, 0):tolist())
        local strided = pt.load(('%s/spec/golden/ptfiles/valid/strides_%s.pt'):format(lib.root, layout))
        assert.is_true(strided:get('channels_last'):is_image())
      end
    end)
    it('reads the strings of Python 2', function()
      zip.write(path 'x', function(archive) archive:add('archive/data.pkl', '\128\2}(U\1aT\2\0\0\0bcu.') end)
      assert.are.equal('bc', pt.load(path 'x'):get 'a')
    end)
    it('keeps control characters of a file from the terminal', function()
      zip.write(path 'x', function(archive) archive:add('archive/data.pkl', '\128\2cos\27[31m\nsystem\n.') end)
      assert_refuses({ 'os?[31m.system' }, pt.load, path 'x')
    end)
    it('writes the same bytes for the same values, with storages at multiples of 64', function()
      local x = samples()
      pt.save(path 'a', pt.dict { { 'w', x.f32 }, { 'v', x.f64 } })
      pt.save(path 'b', pt.dict { { 'w', x.f32 }, { 'v', x.f64 } })
      assert.are.equal(read 'a', read 'b')
      local bytes = read 'a'
      local data = ffi.string(x.f64:ptr(), 16)
      assert.are.equal(1, bytes:find(data, 1, true) % 64)
    end)
    it('writes state dicts as dicts, wherever they stand', function()
      local layer = tycho.nn.Linear(2, 3)
      pt.save(path 'x', { model = layer:state_dict(), groups = { { 'lr', 0.1 } } })
      assert_same(layer.weight, pt.load(path 'x'):get('model'):get 'weight')
      assert.are.same({ { 'lr', 0.1 } }, pt.load(path 'x'):get 'groups')
    end)
    it('refuses what it cannot write', function()
      assert_refuses({ 'pt.save', 'UTF-8' }, pt.save, path 'x', { ['a\255'] = 1 })
      assert_refuses({ 'pt.save', 'function' }, pt.save, path 'x', { print })
      local loop = {}
      loop.loop = loop
      assert_refuses({ 'pt.save', 'contain themselves' }, pt.save, path 'x', loop)
      assert.is_nil(lfs.attributes(path 'x'))
    end)
    it('names a class that it refuses', function()
      local golden = lib.root .. '/spec/golden/ptfiles/corrupt/'
      assert_refuses({ 'os.system', 'state_dict' }, pt.load, golden .. 'global_os_system.pt')
    end)
  end)

  describe('safetensors', function()
    local function raw(header, data) return write('x', file.put_u64(#header) .. header .. (data or '')) end
    it('keeps tensors and metadata', function()
      safetensors.save(path 'x', samples(), { note = 'a "b"\n', step = '3' })
      local got, metadata = safetensors.load(path 'x')
      for name, x in pairs(samples()) do assert_same(x, got:get(name)) end
      assert.are.same({ note = 'a "b"\n', step = '3' }, metadata)
      assert.are.equal(0, file.u64(ffi.cast('const uint8_t *', read 'x')) % 8)
    end)
    it('reads bfloat16', function()
      raw('{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}', '\192\63\0\192')
      assert_same(tensor.tensor { 1.5, -2 }, safetensors.load(path 'x'):get('a'))
    end)
    it('refuses names that a file of it cannot have', function()
      for _, name in ipairs { '__metadata__', 'a\255' } do
        assert_refuses({ 'no tensor can have the name' }, safetensors.save, path 'x', { [name] = tensor.ones { 1 } })
      end
    end)
    it('refuses damaged files', function()
      local entry = '{"a":{"dtype":"%s","shape":[%s],"data_offsets":[%s]}}'
      local data = ('x'):rep(8)
      for words, header in pairs {
        ['tensors fill'] = entry:format('F32', '1', '0,4'), ['begins at byte 4'] = entry:format('F32', '1', '4,8'),
        ['whole numbers'] = entry:format('F32', '-1', '0,8'), ['data_offsets hold'] = entry:format('F32', '3', '0,8'),
        ['not plausible'] = entry:format('F32', '1e10,1e10', '0,8'), ['F8_E4M3'] = entry:format('F8_E4M3', '8', '0,8'),
        ['not an object'] = '{"a":1}', ['valid JSON'] = '{"a":', ['begin with'] = '[]', ['too deeply'] = '{"a":' .. ('['):rep(1e5),
      } do
        assert_refuses({ path 'x', words }, safetensors.load, raw(header, data))
      end
      assert_refuses({ 'claims a header' }, safetensors.load, write('x', ('\255'):rep(9)))
      assert_refuses({ 'shorter' }, safetensors.load, write('x', ''))
    end)
  end)

  describe('any format', function()
    it('is known by what a file holds, whatever its name', function()
      local x = tensor.tensor { 1, 2 }
      npy.save(path 'a.pt', x)
      npz.save(path 'b.npy', { x = x })
      pt.save(path 'c', pt.dict { { 'x', x } })
      safetensors.save(path 'd.npz', { x = x }, { note = 'n' })
      local formats = {}
      for i, name in ipairs { 'a.pt', 'b.npy', 'c', 'd.npz' } do
        local value, metadata, format = tensors.load(path(name))
        formats[i] = format
        assert_same(x, tensor.is_tensor(value) and value or value:get 'x')
        assert.are.equal(i == 4 and 'n' or nil, metadata.note)
      end
      assert.are.same({ 'npy', 'npz', 'pt', 'safetensors' }, formats)
      assert_refuses({ path 'text', '.safetensors' }, tensors.load, write('text', 'some text'))
      assert_refuses({ path 'cut', 'cut off' }, tensors.load, write('cut', read('c'):sub(1, -10)))
    end)
    it('is known where the length of a header looks like the beginning of another', function()
      local x = tensor.tensor { 1 }
      for _, length in ipairs { 128, 0x4b50 } do -- a pickle's, a zip archive's
        safetensors.save(path 'x', { x = x }, { note = ('n'):rep(length - 87) })
        assert.are.equal(length, file.u64(ffi.cast('const uint8_t *', read 'x')))
        assert_same(x, tensors.load(path 'x'):get 'x')
      end
    end)
    it('takes modules and their state dicts, and refuses what would leave nothing', function()
      local layer = tycho.nn.Linear(2, 3)
      for _, ending in ipairs { 'safetensors', 'npz', 'pt' } do
        for _, value in ipairs { layer, layer:state_dict() } do
          tensors.save(path('layer.' .. ending), value)
          local loaded = tensors.load(path('layer.' .. ending))
          assert_same(layer.weight, loaded:get 'weight')
          assert_same(layer.bias, loaded:get 'bias')
        end
        local format = require('tycho.io.' .. ending)
        for _, value in ipairs { layer:state_dict(), pt.dict(layer:state_dict()), { weight = layer.weight, bias = layer.bias } } do
          format.save(path('layer.' .. ending), value)
          assert_same(layer.bias, tensors.load(path('layer.' .. ending)):get 'bias')
        end
      end
      assert_refuses({ 'none.safetensors: the value holds no tensor, and .safetensors has no place for anything else' }, tensors.save,
        path 'none.safetensors', { a = 3 })
      assert.is_nil(lfs.attributes(path 'none.safetensors'))
    end)
    it('lists nested values flat and names what a format has no place for', function()
      local x = tensor.tensor { 1, 2 }
      local value = pt.dict { { 'model', pt.dict { { 'w', x } } }, { 'groups', { pt.dict { { 'lr', 0.1 }, { 'params', { 0, 1 } } } } },
        { pt.tuple { 1, 2 }, pt.none }, { 7, true } }
      local names = {}
      for i, entry in ipairs(tensors.entries(value, 'x')) do names[i] = entry[1] end
      assert.are.same({ 'model/w', 'groups/0/lr', 'groups/0/params', '(1, 2)', '7' }, names)
      assert.are.same({}, tensors.save(path 'x.pt', value, {}))
      assert.are.same({ 'groups/0/lr', 'groups/0/params', '(1, 2)', '7' }, tensors.save(path 'x.safetensors', value, { note = 'n' }))
      local back, metadata = tensors.load(path 'x.safetensors')
      assert_same(x, back:get 'model/w')
      assert.are.same({ note = 'n' }, metadata)
      assert.are.same({ 'metadata note' }, tensors.save(path 'x.npz', back, metadata))
      assert_same(x, npz.load(path 'x.npz')['model/w'])
      assert_refuses({ 'x.txt', '.safetensors' }, tensors.save, path 'x.txt', value, {})
      assert_refuses({ 'here', 'a/b' }, tensors.entries, pt.dict { { 'a/b', 1 }, { 'a', pt.dict { { 'b', 2 } } } }, 'here')
    end)
  end)

  describe('an array in parts', function()
    local function open(rows, dtype) return parts.open(path 'x', { rows, 4 }, 2, dtype) end
    it('says what is wrong with it', function()
      assert_refuses({ 'NumPy has no bf16' }, open, 6, 'bf16')
      assert.are.same({ 0, 4 }, open(0):tensor().shape)
      local array = open(4)
      for i = 1, 2 do array:write(i, tensor.full({ 2, 4 }, i)) end
      assert_same(tensor.full({ 2, 4 }, 2), array:read(2))
      write('x.npy', read('x.npy'):sub(1, -5))
      assert_refuses({ path 'x.npy', 'part 2 is cut off' }, array.read, array, 2)
      os.remove(path 'x.npy')
      assert_refuses({ 'cannot read', path 'x.npy' }, array.read, array, 2)
      os.remove(path 'x.parts')
      assert(lfs.mkdir(path 'x.parts'))
      array = open(4)
      assert_refuses({ path 'x.parts', 'directory' }, array.write, array, 1, tensor.full({ 2, 4 }, 1))
    end)
  end)

  describe('json', function()
    it('keeps values and sorts keys', function()
      json.save(path 'x', { b = { 1, 2.5, true }, a = 'ü', c = json.null })
      assert.are.same({ b = { 1, 2.5, true }, a = 'ü', c = json.null }, json.load(path 'x'))
      assert.are.equal('{"a":1,"b":{"c":2,"d":3}}', json.encode { b = { d = 3, c = 2 }, a = 1 })
    end)
    it('names the file it cannot read', function()
      assert_refuses({ path 'x', 'valid JSON' }, json.load, write('x', '{"a":}'))
      assert_refuses({ path 'x', 'more text' }, json.load, write('x', '1 2'))
    end)
  end)
end)
