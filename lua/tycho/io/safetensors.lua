-- Hugging Face's .safetensors: a JSON header and raw tensors. Reads every type but the 8-bit floats; writes ours. See elements.lua for what
-- stays in the mapped file.
-- Format: github.com/huggingface/safetensors, README.
local ffi = require 'ffi'
local tensor = require 'tycho.tensor'
local hash = require 'tycho.hash'
local file = require 'tycho.io.file'
local elements = require 'tycho.io.elements'
local json = require 'tycho.io.json'
local is_utf8 = require 'tycho.io.utf8'
local python = require 'tycho.io.python'
local fail = file.fail

local M = {}

local LONGEST_HEADER = 100 * 10^6
local kinds = { F64 = 'f64', F32 = 'f32', F16 = 'f16', BF16 = 'bf16', I64 = 'i64', I32 = 'i32', I16 = 'i16', I8 = 'i8', U64 = 'u64',
  U32 = 'u32', U16 = 'u16', U8 = 'u8', BOOL = 'bool' }
local names = { f64 = 'F64', f32 = 'F32', i64 = 'I64', i32 = 'I32', u8 = 'U8', f16 = 'F16', bf16 = 'BF16' }

local function is_offset(x) return type(x) == 'number' and x >= 0 and x <= 2^53 and x == math.floor(x) end

-- Checks one header entry: { name, kind, shape, first, last }, positions in the byte buffer.
local function parse_entry(name, fields, where)
  if type(fields) ~= 'table' then fail(where, 'the header entry of %s is not an object', name) end
  local kind = elements[kinds[fields.dtype]]
  if not kind then fail(where, 'the element type %s of %s is not supported', tostring(fields.dtype), name) end
  local offsets, shape = fields.data_offsets, fields.shape
  if type(shape) ~= 'table' or type(offsets) ~= 'table' or not is_offset(offsets[1]) or not is_offset(offsets[2]) then
    fail(where, '%s must have dtype, shape and two data_offsets', name)
  end
  local sizes = {}
  for i = 1, #shape do sizes[i] = shape[i] end
  local bytes = elements.count(sizes, where) * kind.size
  if offsets[2] - offsets[1] ~= bytes then
    fail(where, '%s needs %.0f bytes, its data_offsets hold %.0f', name, bytes, offsets[2] - offsets[1])
  end
  return { name = name, kind = kind, shape = sizes, first = offsets[1], last = offsets[2] }
end

local function parse(bytes, size, where, mapping)
  if size < 8 then fail(where, 'not a safetensors file: shorter than 8 bytes') end
  local length = file.u64(bytes)
  if length > LONGEST_HEADER or length + 8 > size then
    fail(where, 'not a safetensors file: it claims a header of %.0f bytes in a file of %.0f', length, size)
  end
  local text = ffi.string(bytes + 8, length)
  if text:sub(1, 1) ~= '{' then fail(where, "not a safetensors file: the header must begin with '{'") end
  local header = json.decode(text, where)
  local entries, metadata = {}, {}
  for name, fields in pairs(header) do
    if name == '__metadata__' then
      for key, value in pairs(type(fields) == 'table' and fields or {}) do
        if type(value) ~= 'string' then fail(where, '__metadata__ must map strings to strings') end
        metadata[key] = value
      end
    else
      entries[#entries + 1] = parse_entry(name, fields, where)
    end
  end
  table.sort(entries, function(a, b)
    if a.first ~= b.first then return a.first < b.first end
    if a.last ~= b.last then return a.last < b.last end
    return a.name < b.name
  end)
  local at = 0
  for _, entry in ipairs(entries) do
    if entry.first ~= at then fail(where, '%s begins at byte %.0f of the data, expected %.0f', entry.name, entry.first, at) end
    at = entry.last
  end
  if at ~= size - 8 - length then fail(where, 'the tensors fill %.0f bytes of %.0f', at, size - 8 - length) end
  local out = python.dict()
  for _, entry in ipairs(entries) do
    out:set(entry.name, elements.read(bytes + 8 + length + entry.first, entry.kind, entry.shape, nil, mapping, where))
  end
  return out, metadata
end

-- A Dict of tensors in the file's order (see pt.lua for Dict), and the table of metadata strings.
function M.load(path)
  return file.with_mapping(path, function(bytes, size, mapping) return parse(bytes, size, path, mapping) end)
end

-- Checksum of what a file holds. sums: name -> hash of the tensor.
local function checksum_of(sums, metadata)
  local rest = {}
  for key, value in pairs(metadata) do rest[key] = key ~= 'checksum' and value or nil end
  return hash(json.encode { sums, rest })
end

-- Raises when the checksum that M.load found in the metadata of path, if there is one, is not that of the tensors and metadata.
function M.check(path, tensors, metadata)
  if not metadata.checksum then return end
  local sums = {}
  for name, t in python.pairs(tensors) do sums[name] = hash(t) end
  if checksum_of(sums, metadata) ~= metadata.checksum then
    fail(path, 'its tensors or its state are damaged, the checksum is another; put a copy back, or start a new run')
  end
end

-- tensors: a Dict, table or state dict of tensors by name; metadata: table of strings [opt], and checksum = true, for which a checksum of all that is
-- written is put in, for M.check. Largest element types first, then by name, so that equal content gives equal files and all data is aligned.
function M.save(path, tensors, metadata)
  local entries = {}
  for name, value in python.pairs(python.named(tensors)) do
    if type(name) ~= 'string' or not tensor.is_tensor(value) then
      error(('safetensors.save: expected tensors by name, got %s under %s'):format(type(value), tostring(name)), 0)
    end
    if name == '__metadata__' or not is_utf8(name) then
      error(('safetensors.save: no tensor can have the name %q: expected UTF-8 text other than __metadata__'):format(name), 0)
    end
    entries[#entries + 1] = { name = name, value = value, bytes = elements.bytes(value), size = elements[value.dtype].size }
  end
  table.sort(entries, function(a, b)
    if a.size ~= b.size then return a.size > b.size end
    return a.name < b.name
  end)
  local words = {}
  for key, value in pairs(metadata or {}) do
    words[key] = key == 'checksum' and value == true and ('0'):rep(16) or value
    if type(key) ~= 'string' or type(words[key]) ~= 'string' then
      error(('safetensors.save: metadata must map strings to strings, got %s'):format(tostring(key)), 0)
    end
  end
  local parts, at, sums = {}, 0, metadata and metadata.checksum == true and {}
  for _, e in ipairs(entries) do
    parts[#parts + 1] = ('%s:{"dtype":"%s","shape":[%s],"data_offsets":[%.0f,%.0f]}'):format(json.encode(e.name), names[e.value.dtype],
      table.concat(e.value.shape, ','), at, at + e.bytes)
    at = at + e.bytes
  end
  local function write_header(out)
    local head = next(words) and ('"__metadata__":%s%s'):format(json.encode(words), parts[1] and ',' or '') or ''
    local header = '{' .. head .. table.concat(parts, ',') .. '}'
    header = header .. (' '):rep(-#header % 8)
    out:write(file.put_u64(#header) .. header)
  end
  file.write(path, function(out)
    write_header(out)
    for _, e in ipairs(entries) do
      local dense = tensor.dense(e.value:cpu())
      out:write(dense:ptr(), e.bytes)
      if sums then sums[e.name] = hash(dense) end
    end
    if sums then
      words.checksum = checksum_of(sums, words)
      out:seek(0)
      write_header(out)
    end
  end)
end

return M
