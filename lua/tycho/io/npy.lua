-- NumPy's .npy arrays: numbers to tensors (Fortran order by their strides; see elements.lua for what stays in the mapped file), '<U' and 'S'
-- arrays to Lua lists of strings. The header is parsed, never evaluated; object arrays (pickles) and structured types are refused.
-- Format: numpy.lib.format, versions 1 to 3; version 1 is written.
local ffi = require 'ffi'
local tensor = require 'tycho.tensor'
local file = require 'tycho.io.file'
local elements = require 'tycho.io.elements'
local is_utf8 = require 'tycho.io.utf8'
local fail = file.fail

local M = {}

local LONGEST_HEADER = 65536

-- ---- header ----

-- Parses the Python dict literal { 'descr': string, 'fortran_order': bool, 'shape': tuple of ints }.
local function parse_header(text, where)
  local at = text:match('^%s*{%s*()')
  if not at then fail(where, 'the header must be a dict, found %q', text:sub(1, 40)) end
  local fields = {}
  while not text:find('^}%s*$', at) do
    local key, next_at = text:match('^[\'"]([%w_]+)[\'"]%s*:%s*()', at)
    if not key or fields[key] ~= nil then fail(where, 'the header is damaged at %q', text:sub(at, at + 40)) end
    at = next_at
    local value
    value, next_at = text:match("^'([^'\\]*)'()", at)
    if not value then value, next_at = text:match('^"([^"\\]*)"()', at) end
    if not value then
      value, next_at = text:match('^(%u%l+)()', at)
      if value == 'True' then value = true elseif value == 'False' then value = false else value = nil end
    end
    if value == nil and key == 'shape' then
      local inside
      inside, next_at = text:match('^%(([%dL%s,]*)%)()', at)
      if inside then
        value = {}
        for digits in inside:gmatch('%d+') do value[#value + 1] = tonumber(digits) end
      end
    end
    if value == nil then
      if key == 'descr' and text:sub(at, at) == '[' then
        fail(where, 'structured arrays are not supported; save each field as an array of its own')
      end
      fail(where, 'the header value of %s is not a literal that .npy allows: %q', key, text:sub(at, at + 40))
    end
    fields[key] = value
    at = text:match('^%s*,?%s*()', next_at)
  end
  if type(fields.descr) ~= 'string' or type(fields.fortran_order) ~= 'boolean' or type(fields.shape) ~= 'table' then
    fail(where, 'the header must have descr, fortran_order and shape')
  end
  return fields
end

-- ---- decoding ----

local kinds = { f8 = 'f64', f4 = 'f32', f2 = 'f16', i8 = 'i64', i4 = 'i32', i2 = 'i16', i1 = 'i8', u8 = 'u64', u4 = 'u32', u2 = 'u16',
  u1 = 'u8', b1 = 'bool' }

local function utf8(code, where)
  if code < 0x80 then return string.char(code) end
  if code > 0x10ffff or (code >= 0xd800 and code < 0xe000) then fail(where, 'U+%X is not a character', code) end
  local tail = {}
  local first = code < 0x800 and 0xc0 or code < 0x10000 and 0xe0 or 0xf0
  for i = first == 0xc0 and 1 or first == 0xe0 and 2 or 3, 1, -1 do
    tail[i] = string.char(0x80 + code % 64)
    code = math.floor(code / 64)
  end
  return string.char(first + code) .. table.concat(tail)
end

-- One string of width UCS-4 characters; trailing zeros are padding.
local function read_unicode(p, width, big, where)
  local out = {}
  for i = 0, width - 1 do
    local q = p + 4 * i
    out[i + 1] = big and ((q[0] * 256 + q[1]) * 256 + q[2]) * 256 + q[3] or file.u32(q)
  end
  while out[#out] == 0 do out[#out] = nil end
  for i = 1, #out do out[i] = utf8(out[i], where) end
  return table.concat(out)
end
local function read_bytes(p, width)
  while width > 0 and p[width - 1] == 0 do width = width - 1 end
  return ffi.string(p, width)
end

local function nest(strings, shape, stride, dim, offset)
  if dim > #shape then return strings(offset) end
  local out = {}
  for i = 1, shape[dim] do out[i] = nest(strings, shape, stride, dim + 1, offset + (i - 1) * stride[dim]) end
  return out
end

local function fortran_stride(shape)
  local stride, step = {}, 1
  for i = 1, #shape do stride[i], step = step, step * shape[i] end
  return stride
end

-- The array in size bytes; where names it in errors; mapping: the mapped file that they lie in, nil when they will not last.
function M.parse(bytes, size, where, mapping)
  if size < 10 or ffi.string(bytes, 6) ~= '\147NUMPY' then fail(where, 'not a .npy array: it must begin with \\x93NUMPY') end
  local version = bytes[6]
  if version < 1 or version > 3 or bytes[7] ~= 0 then fail(where, '.npy versions 1 to 3 are supported, found %d.%d', version, bytes[7]) end
  local start = version == 1 and 10 or 12
  if size < start then fail(where, 'the file ends inside the header') end
  local length = version == 1 and file.u16(bytes + 8) or file.u32(bytes + 8)
  if start + length > size or length > LONGEST_HEADER then
    fail(where, 'claims a header of %.0f bytes, more than the file or the limit of %d allows', length, LONGEST_HEADER)
  end
  local header = parse_header(ffi.string(bytes + start, length), where)
  local order, letter, digits = header.descr:match('^([<>|=]?)(%a)(%d*)$')
  if letter == 'O' then fail(where, 'object arrays hold a Python pickle and are never read; save numbers or strings') end
  local name = letter and kinds[letter .. digits]
  local text = letter == 'U' or letter == 'S'
  if not name and not (text and digits ~= '' and #digits < 9) then
    fail(where, "element type '%s' is not supported (numbers, bool, 'U' and 'S' strings are)", header.descr)
  end
  local kind = elements[name]
  local item = kind and kind.size or tonumber(digits) * (letter == 'U' and 4 or 1)
  local count = elements.count(header.shape, where)
  bytes = bytes + start + length
  local there = size - start - length
  if count * item ~= there then
    local shape = table.concat(header.shape, ', ')
    fail(where, 'shape (%s) of %s needs %.0f bytes, the file holds %.0f', shape, header.descr, count * item, there)
  end
  local stride = header.fortran_order and #header.shape > 1 and fortran_stride(header.shape) or nil
  local big = order == '>'
  if kind then return elements.read(bytes, kind, header.shape, stride, mapping, where, big) end
  local lists = 1 -- and empty strings: nothing of them is in the file
  for _, n in ipairs(header.shape) do lists = lists * math.max(n, 1) end
  if count * item == 0 and lists > 2^20 then
    fail(where, 'shape (%s) of strings without a byte is not plausible', table.concat(header.shape, ', '))
  end
  local width = tonumber(digits)
  local function string_at(i)
    if letter == 'S' then return read_bytes(bytes + i * item, width) end
    return read_unicode(bytes + i * item, width, big, where)
  end
  local list = nest(string_at, header.shape, stride or elements.dense_stride(header.shape), 1, 0)
  if type(list) == 'string' then list = { list } end
  if #header.shape ~= 1 then list.shape = header.shape end
  return list
end

-- A tensor, or a list of strings: UTF-8 for 'U' arrays, bytes for 'S'. Arrays of strings that do not have exactly one dim
-- are nested lists with their sizes in field shape.
function M.load(path)
  return file.with_mapping(path, function(bytes, size, mapping) return M.parse(bytes, size, path, mapping) end)
end

-- The same from a string of bytes; name is used in errors.
function M.decode(text, name)
  return M.parse(ffi.cast('const uint8_t *', text), #text, name or 'npy')
end

-- ---- encoding ----

local descriptions = { f64 = '<f8', f32 = '<f4', i64 = '<i8', i32 = '<i4', u8 = '|u1', f16 = '<f2' }

-- Version 1 header, padded so that the data starts at a multiple of 64 bytes.
local function header(description, shape)
  local sizes = table.concat(shape, ', ')
  if #shape == 1 then sizes = sizes .. ',' end
  local text = ("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }"):format(description, sizes)
  text = text .. (' '):rep(-(#text + 11) % 64) .. '\n'
  return '\147NUMPY\1\0' .. file.put_u16(#text) .. text
end

-- The header of an array of this element type and shape: what stands before its elements in the file.
function M.header(dtype, shape)
  return header(descriptions[dtype] or error(('NumPy has no %s: convert it, to f32 say'):format(dtype), 0), shape)
end

local function code_points(text, where)
  if not is_utf8(text) then fail(where, '%q is not UTF-8 text', text) end
  local out = {}
  local at = 1
  while at <= #text do
    local first = text:byte(at)
    local extra = first < 0x80 and 0 or first < 0xe0 and 1 or first < 0xf0 and 2 or 3
    local code = extra == 0 and first or first % 2^(6 - extra)
    for i = 1, extra do code = code * 64 + text:byte(at + i) % 64 end
    out[#out + 1] = code
    at = at + 1 + extra
  end
  return out
end

local function collect_strings(value, out)
  local is_list = type(value) == 'table' and getmetatable(value) == nil
  if not is_list then out[#out + 1] = value end
  for i = 1, is_list and #value or 0 do collect_strings(value[i], out) end
  return out
end

-- The '<U' array of a list as M.load returns them, padded to the longest.
local function string_pieces(list, where)
  local strings, codes, width, shape = collect_strings(list, {}), {}, 1, list.shape or { #list }
  for i, text in ipairs(strings) do
    if type(text) ~= 'string' then
      fail(where, 'expected a tensor or a list of strings, found a %s in the list', tensor.is_tensor(text) and 'tensor' or type(text))
    end
    codes[i] = code_points(text, where)
    width = math.max(width, #codes[i])
  end
  if elements.count(shape, where) ~= #strings then
    fail(where, 'a list of strings is flat, or has its sizes in field shape: found %d strings for shape (%s)', #strings, table.concat(shape, ', '))
  end
  local pieces = { header('<U' .. width, shape) }
  for i = 1, #codes do
    local row = {}
    for j = 1, width do row[j] = file.put_u32(codes[i][j] or 0) end
    pieces[i + 1] = table.concat(row)
  end
  return pieces
end

-- The bytes of an array, a tensor or a list of UTF-8 strings, in pieces for zip's archive:add; where names it in errors.
function M.pieces(x, where)
  if not tensor.is_tensor(x) then
    if type(x) ~= 'table' then fail(where, 'expected a tensor or a list of strings, got a %s', type(x)) end
    return string_pieces(x, where)
  end
  x = tensor.dense(x:cpu())
  if x.dtype == 'bf16' then x = x:to('f32') end -- NumPy has none
  return { header(descriptions[x.dtype], x.shape), { bytes = x:ptr(), size = elements.bytes(x), tensor = x } }
end

-- The same as a string.
function M.encode(x)
  local out = {}
  for i, piece in ipairs(M.pieces(x, 'npy.encode')) do out[i] = type(piece) == 'string' and piece or ffi.string(piece.bytes, piece.size) end
  return table.concat(out)
end

local function save(path, x)
  local pieces = M.pieces(x, path)
  file.write(path, function(out)
    for _, piece in ipairs(pieces) do
      if type(piece) == 'string' then out:write(piece) else out:write(piece.bytes, piece.size) end
    end
  end)
end

function M.save(path, x)
  if not tensor.is_tensor(x) then error(('npy.save: expected a tensor, got %s'):format(type(x)), 2) end
  save(path, x)
end

-- A Lua list of UTF-8 strings as a '<U' array, padded to the longest; of list.shape where the list is nested, as M.load returns them.
function M.save_strings(path, list) save(path, list) end

return M
