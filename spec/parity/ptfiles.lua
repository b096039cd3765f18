-- Checks the file readers on a folder of recorded files: valid/ (.pt), npy/ (.npy, .npz) and their expected.json must be read to the
-- last bit, corrupt/ and npy/corrupt/ must be refused with one sentence, quickly and without taking memory. Each of the four may be absent.
local json = require 'dkjson'
local lfs = require 'lfs'
local tensor = require 'tycho.tensor'
local tycho = require 'tycho'
local pt = require 'tycho.io.pt'
local npy = require 'tycho.io.npy'
local npz = require 'tycho.io.npz'

local SLOWEST = 5 -- seconds for one corrupt file
local LARGEST = 64 * 2^20 -- bytes taken for one corrupt file

local function read_json(path)
  local file = assert(io.open(path, 'rb'))
  local text = file:read('*a')
  file:close()
  return assert(json.decode(text, 1, json.null))
end

local function sorted_keys(t)
  local keys = {}
  for key in pairs(t) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

-- ---- comparing with expected.json ----

local special = { nan = 0 / 0, inf = math.huge, ['-inf'] = -math.huge }

local function same_number(expected, got)
  if expected == true then expected = 1 elseif expected == false then expected = 0 end
  if type(got) == 'cdata' then return tostring(got):match('^-?%d+') == tostring(expected) end
  if special[expected] then
    expected = special[expected]
  elseif type(expected) == 'string' then
    return ('%.0f'):format(got) == expected
  end
  return expected == got and 1 / expected == 1 / got or expected ~= expected and got ~= got
end

local npy_dtypes = { f8 = 'f64', f4 = 'f32', f2 = 'f32', i8 = 'i64', i4 = 'i32', i2 = 'i32', i1 = 'i32', u8 = 'i64', u4 = 'i64',
  u2 = 'i32', u1 = 'u8', b1 = 'u8' }
local dtypes = { f16 = 'f32', bf16 = 'f32', f32 = 'f32', f64 = 'f64', i8 = 'i32', i16 = 'i32', i32 = 'i32', i64 = 'i64', u8 = 'u8',
  bool = 'u8' }

-- Number of differing values; a difference of structure raises.
local function compare_tensor(expected, got, dtype)
  assert(tensor.is_tensor(got), 'expected a tensor')
  assert(dtype and got.dtype == dtype, 'expected dtype ' .. tostring(dtype) .. ', got ' .. got.dtype)
  assert(table.concat(got.shape, ',') == table.concat(expected.shape, ','), 'shape')
  assert(got:numel() == #expected.values, 'number of values')
  for i, stride in ipairs(expected.stride_in_file or {}) do
    assert(got:numel() == 0 or got:size(i - 1) == 1 or got:stride(i - 1) == stride, 'stride')
  end
  got = tensor.dense(got)
  local wrong, p, read = 0, got:ptr(), got.type.read
  for i, value in ipairs(expected.values) do
    if not same_number(value, dtype == 'i64' and p[i - 1] or read(p, i - 1)) then wrong = wrong + 1 end
  end
  return wrong
end

local compare
local function compare_items(expected, got)
  local wrong = 0
  assert(#got == #expected.items, 'length')
  for i, item in ipairs(expected.items) do wrong = wrong + compare(item, got[i]) end
  return wrong
end
function compare(expected, got)
  local kind = expected.type
  if kind == 'tensor' then return compare_tensor(expected, got, dtypes[expected.dtype]) end
  if kind == 'list' then
    assert(type(got) == 'table' and getmetatable(got) == nil, 'expected a list')
    return compare_items(expected, got)
  elseif kind == 'tuple' then
    assert(pt.is_tuple(got), 'expected a tuple')
    return compare_items(expected, got)
  elseif kind == 'dict' or kind == 'OrderedDict' then
    assert(pt.is_dict(got) and got.ordered == (kind == 'OrderedDict'), 'expected ' .. kind)
    assert(got:len() == #expected.items, 'number of keys')
    local wrong = 0
    for i, item in ipairs(expected.items) do
      local key = got.keys[i]
      if type(item[1]) == 'table' then
        wrong = wrong + compare(item[1], key)
      else
        assert(key == item[1], 'key ' .. tostring(item[1]))
      end
      assert(got:get(key) == got.values[i], 'get')
      wrong = wrong + compare(item[2], got.values[i])
    end
    return wrong
  elseif kind == 'none' then
    return got == pt.none and 0 or 1
  elseif kind == 'int' or kind == 'float' then
    return same_number(expected.value, got) and 0 or 1
  end
  return got == expected.value and 0 or 1
end

-- The bytes that Python shows as b'...'.
local function python_bytes(text)
  local inside = text:match("^b'(.*)'$") or text:match('^b"(.*)"$')
  local plain = { n = '\n', r = '\r', t = '\t' }
  return (inside:gsub('\\(.)(%x?%x?)', function(letter, hex)
    if letter == 'x' then return string.char(tonumber(hex, 16)) end
    return (plain[letter] or letter) .. hex
  end))
end

local function flat(list, out)
  for i = 1, #list do
    if type(list[i]) == 'table' then flat(list[i], out) else out[#out + 1] = list[i] end
  end
  return out
end

local function compare_array(expected, got)
  local letter = expected.dtype:match('[US]')
  if not letter then return compare_tensor(expected, got, npy_dtypes[expected.dtype:sub(2)]) end
  assert(table.concat(got.shape or { #got }, ',') == table.concat(expected.shape, ','), 'shape')
  local strings, wrong = flat(got, {}), 0
  assert(#strings == #expected.values, 'number of values')
  for i, value in ipairs(expected.values) do
    if strings[i] ~= (letter == 'S' and python_bytes(value) or value) then wrong = wrong + 1 end
  end
  return wrong
end

-- ---- the folder ----

local function load(path)
  local kind = path:match('%.(%w+)$')
  return (kind == 'npy' and npy or kind == 'npz' and npz or pt).load(path)
end

-- The expectations of the folder, and their names in order; none when the folder is absent.
local function expectations(folder)
  if lfs.attributes(folder, 'mode') ~= 'directory' then return {}, {} end
  local expected = read_json(folder .. '/expected.json')
  return expected, sorted_keys(expected)
end

-- dir: a folder with valid/, corrupt/ and npy/. report(name, error, tolerance, ok) is called once for every file; error is the number of
-- wrong values, or the reason.
return function(dir, report)
  local function check(name, fn)
    local ok, wrong = pcall(fn)
    report(name, wrong, 0, ok and wrong == 0)
  end
  local valid, names = expectations(dir .. '/valid')
  for _, name in ipairs(names) do
    check('valid/' .. name, function() return compare(valid[name].content, load(dir .. '/valid/' .. name)) end)
  end
  local arrays
  arrays, names = expectations(dir .. '/npy')
  for _, name in ipairs(names) do
    check('npy/' .. name, function()
      local got = load(dir .. '/npy/' .. name)
      if arrays[name].values then return compare_array(arrays[name], got) end
      local wrong = 0
      for key, expected in pairs(arrays[name]) do
        if type(expected) == 'table' then wrong = wrong + compare_array(expected, got[key]) end
      end
      return wrong
    end)
  end
  for _, folder in ipairs { 'corrupt/', 'npy/corrupt/' } do
    _, names = expectations(dir .. '/' .. folder)
    for _, name in ipairs(names) do
      check(folder .. name, function()
        local path = dir .. '/' .. folder .. name
        tycho.collect()
        local live, kilobytes, start = tycho.memory().live, collectgarbage('count'), os.clock()
        local ok, message = pcall(load, path)
        assert(not ok, 'it was read, expected a refusal')
        assert(type(message) == 'string' and message:sub(1, #path) == path and #message < #path + 300 and not message:find('\n'),
          'expected one sentence that begins with the path, got ' .. tostring(message))
        assert(os.clock() - start < SLOWEST, 'too slow')
        assert(tycho.memory().live - live < LARGEST and (collectgarbage('count') - kilobytes) * 1024 < LARGEST, 'too much memory')
        return 0
      end)
    end
  end
end
