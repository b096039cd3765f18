-- PyTorch's .pt files. Reading: zip and legacy layouts, by a pickle machine that can run nothing, every size checked against the file before
-- memory is taken. Writing: the zip layout, which torch.load(weights_only=True) reads.
--
-- Python values become: dict and OrderedDict -> Dict (d:get(key), for k, v in d:pairs(), d.keys, d.values; order kept), list -> Lua list,
-- tuple -> Lua list marked by is_tuple, None -> pt.none, int -> number (int64 when beyond 2^53), tensors -> tensors (f16, bf16 -> f32;
-- bool -> u8; i8, i16 -> i32). As in PyTorch, tensors keep their strides, and those that view one storage in the file share one here: a
-- change of one shows in the others, never in the file. Storages lie in the mapped file where elements.lua allows it. Writing stores each
-- tensor by itself, row-major. Does not read TorchScript, whole modules, tar files or sharded checkpoints.
local ffi = require 'ffi'
local tensor = require 'tycho.tensor'
local file = require 'tycho.io.file'
local zip = require 'tycho.io.zip'
local elements = require 'tycho.io.elements'
local is_utf8 = require 'tycho.io.utf8'
local pickle = require 'tycho.io.pickle'
local python = require 'tycho.io.python'
local fail = file.fail

local M = { none = python.none, dict = python.dict, is_dict = python.is_dict, tuple = python.tuple, is_tuple = python.is_tuple }

local DEEPEST = 100
local MOST_LEAVES = 1e7
-- Views may repeat a storage (expanded tensors), to four times its size or to this many bytes.
local REPEATED_BYTES = 256 * 2^20

-- ---- what a pickle may name ----

local Storage, Pending = {}, {} -- metatables: a storage of the file, and a tensor that views one and is not yet read

local storage_kinds = { Float = 'f32', Double = 'f64', Half = 'f16', BFloat16 = 'bf16', Long = 'i64', Int = 'i32', Short = 'i16',
  Char = 'i8', Byte = 'u8', Bool = 'bool' }

local function is_whole(x, least) return type(x) == 'number' and x >= least and x <= 2^53 and x == math.floor(x) end

local function sizes(list, what, where)
  if not python.is_tuple(list) then fail(where, 'a tensor has no %s', what) end
  local out = {}
  for i = 1, #list do
    if not is_whole(list[i], 0) then fail(where, 'a tensor has the %s %s, expected whole numbers >= 0', what, tostring(list[i])) end
    out[i] = list[i]
  end
  return out
end

-- A tensor of the file: checks that all its elements lie inside its storage.
local function pend(args, where)
  local storage, offset = args[1], args[2]
  if getmetatable(storage) ~= Storage then fail(where, 'a tensor without a storage') end
  local size, stride = sizes(args[3], 'size', where), sizes(args[4], 'stride', where)
  if #size ~= #stride then fail(where, 'a tensor has %d sizes and %d strides', #size, #stride) end
  if not is_whole(offset, 0) then fail(where, 'a tensor has the storage offset %s', tostring(offset)) end
  local count, last = elements.count(size, where), offset
  for i = 1, #size do last = last + (size[i] - 1) * stride[i] end
  if count > 0 and last >= storage.numel or offset > storage.numel then
    fail(where, 'a tensor of size (%s) reaches beyond its storage of %.0f elements', table.concat(size, ', '), storage.numel)
  end
  if count > 4 * storage.numel and count * storage.kind.result_size > REPEATED_BYTES then
    fail(where, 'a tensor repeats %.0f elements to size (%s), which is not plausible', storage.numel, table.concat(size, ', '))
  end
  return setmetatable({ storage = storage, offset = offset, size = size, stride = stride }, Pending)
end

local function globals_for(where)
  local function rebuild(args) return pend(args, where) end
  local function rebuild_parameter(args)
    if getmetatable(args[1]) ~= Pending then fail(where, 'a parameter without a tensor') end
    return args[1]
  end
  local globals = {
    ['collections OrderedDict'] = pickle.global { call = function(args)
      local d = python.dict()
      for _, item in ipairs(type(args[1]) == 'table' and args[1] or {}) do
        if type(item) ~= 'table' or #item ~= 2 or not d:set(item[1], item[2]) then
          fail(where, 'an OrderedDict of something else than pairs')
        end
      end
      return d
    end },
    ['torch._utils _rebuild_tensor'] = pickle.global { call = rebuild },
    ['torch._utils _rebuild_tensor_v2'] = pickle.global { call = rebuild },
    ['torch._utils _rebuild_parameter'] = pickle.global { call = rebuild_parameter },
    ['torch._utils _rebuild_parameter_with_state'] = pickle.global { call = rebuild_parameter },
    ['torch Size'] = pickle.global { call = function(args) return python.tuple(sizes(args[1], 'size', where)) end },
    ['torch device'] = pickle.global { call = function(args)
      return tostring(args[1]) .. (args[2] and ':' .. tostring(args[2]) or '')
    end },
  }
  for name, kind in pairs(storage_kinds) do
    globals['torch ' .. name .. 'Storage'] = pickle.global { kind = elements[kind] }
  end
  return globals
end

-- Handles ('storage', class, key, location, numel[, view]): returns the function, and the table key -> storage that it fills.
local function storage_table(where)
  local storages = {}
  return function(id)
    if not python.is_tuple(id) or #id < 5 or id[1] ~= 'storage' or type(id[2]) ~= 'table' or not id[2].kind or type(id[3]) ~= 'string'
        or not is_whole(id[5], 0) then
      fail(where, "a storage must be given as ('storage', class, key, location, number of elements)")
    end
    if id[6] ~= nil and id[6] ~= python.none then fail(where, 'storages that view other storages (torch < 0.4) are not supported') end
    local key, kind = id[3], id[2].kind
    local s = storages[key]
    if not s then
      s = setmetatable({ key = key, kind = kind, numel = id[5] }, Storage)
      storages[key] = s
    elseif s.kind ~= kind or s.numel ~= id[5] then
      fail(where, 'storage %s is described in two ways', key)
    end
    return s
  end, storages
end

-- ---- from the pickle's value to tensors ----

-- Of a walk over a value: places (where it holds tensors), and for each container its leaves and height, and whether it is being visited. Not
-- upvalues of a closure: compiled code would keep that, and with it all tensors, alive for good.
local visit
local function visit_all(walk, list, depth)
  local leaves, height = 0, 0
  for i = 1, #list do
    local more, below = visit(walk, list, i, depth)
    leaves, height = leaves + more, math.max(height, below)
  end
  return leaves, height
end
function visit(walk, holder, key, depth)
  local value, where = holder[key], walk.where
  if type(value) ~= 'table' or value == python.none then return 1, 0 end
  local meta = getmetatable(value)
  if meta == Pending then
    walk.places[#walk.places + 1] = { holder = holder, key = key }
    return 1, 0
  end
  if meta ~= nil and not python.is_dict(value) and not python.is_tuple(value) then
    fail(where, 'it holds a bare storage or class, expected tensors in dicts, lists and tuples')
  end
  if walk.visiting[value] then fail(where, 'a list or dict contains itself') end
  if not walk.leaves[value] then
    if depth > DEEPEST then fail(where, 'lists and dicts are nested deeper than %d', DEEPEST) end
    walk.visiting[value] = true
    local leaves, height = visit_all(walk, python.is_dict(value) and value.values or value, depth + 1)
    walk.visiting[value] = nil
    walk.leaves[value], walk.height[value] = leaves + 1, height + 1
  end
  if depth + walk.height[value] > DEEPEST then fail(where, 'lists and dicts are nested deeper than %d', DEEPEST) end
  if walk.leaves[value] > MOST_LEAVES then fail(where, 'shared lists unfold to more than %g values', MOST_LEAVES) end
  return walk.leaves[value], walk.height[value]
end

-- Walks the value once: refuses cycles, excessive depth and sharing that unfolds without end; returns the places that hold tensors.
local function survey(root, where)
  local walk = { places = {}, leaves = {}, height = {}, visiting = {}, where = where }
  visit(walk, root, 1, 0)
  return walk.places
end

-- Replaces every pending tensor below value. read(storage) returns the elements of a storage of the file.
local function materialise(value, read, where)
  local root, done = { value }, {}
  for i, place in ipairs(survey(root, where)) do
    local pending = place.holder[place.key]
    local storage = pending.storage
    storage.elements = storage.elements or read(storage)
    pending.tensor = pending.tensor or elements.view(storage.elements, storage.kind, pending.offset, pending.size, pending.stride)
    place.holder[place.key] = pending.tensor
    done[i] = pending
  end
  -- The machine's memo and table of storages may outlive the call, in compiled code.
  for _, pending in ipairs(done) do pending.tensor, pending.storage.elements = nil, nil end
  return root[1]
end

-- ---- the two layouts ----

local function load_zip(bytes, size, where, mapping)
  local archive = zip.open(bytes, size, where, mapping)
  local root, entry
  for _, e in ipairs(archive) do
    local prefix = e.name:match('^(.*)data%.pkl$')
    if prefix == '' or prefix and prefix:sub(-1) == '/' then
      if root then fail(where, 'two pickles, under %q and %q: expected one data.pkl', root, prefix) end
      root, entry = prefix, e
    end
  end
  if not root then fail(where, 'a zip archive without data.pkl: not a PyTorch checkpoint') end
  if archive.by_name[root .. 'constants.pkl'] then
    fail(where, 'a TorchScript archive, which holds code; save model.state_dict() with torch.save instead')
  end
  local order = archive.by_name[root .. 'byteorder']
  if order and zip.read(order, function(data) return ffi.string(data, order.size) end) ~= 'little' then
    fail(where, 'its byte order is not little')
  end
  local persistent = storage_table(where)
  local value = zip.read(entry, function(data)
    return (pickle.load(data, entry.size, 0, globals_for(where), persistent, entry.where))
  end)
  return materialise(value, function(storage)
    local record = archive.by_name[root .. 'data/' .. storage.key]
    if not record then fail(where, 'the data of storage %q is missing', storage.key) end
    if record.size ~= storage.numel * storage.kind.size then
      fail(record.where, 'expected %.0f bytes (%.0f elements of %s), found %.0f', storage.numel * storage.kind.size, storage.numel,
        storage.kind.name, record.size)
    end
    return zip.read(record, function(data, source) return elements.storage(data, storage.kind, storage.numel, source, record.where) end)
  end, where)
end

-- PROTO, perhaps FRAME, and the magic number 0x1950a86a20f9469cfc6c as LONG1: how legacy files begin.
local function legacy_start(bytes, size)
  if size < 2 or bytes[0] ~= 0x80 then return nil end
  local head = ffi.string(bytes, math.min(size, 32))
  local _, stop = head:find('\138\10\108\252\156\70\249\32\106\168\80\25.', 1, true)
  return stop and stop <= 24 and stop or nil
end

local function load_legacy(bytes, size, at, where, mapping)
  local persistent, storages = storage_table(where)
  local function next_pickle(globals)
    local value
    value, at = pickle.load(bytes, size, at, globals, persistent, where)
    return value
  end
  local version = next_pickle({})
  if version ~= 1001 then fail(where, 'legacy format 1001 is supported, found %s', tostring(version)) end
  local system = next_pickle({})
  if python.is_dict(system) and system:get('little_endian') == false then fail(where, 'its byte order is not little') end
  local value = next_pickle(globals_for(where))
  local keys = next_pickle({})
  if type(keys) ~= 'table' then fail(where, 'the list of storages is missing') end
  for _, key in ipairs(keys) do
    local storage = storages[key]
    if not storage or storage.start then fail(where, 'data for storage %s, which no tensor uses', tostring(key)) end
    local there = size - at - 8
    local count = there >= 0 and file.u64(bytes + at) or 0
    local wanted = storage.numel * storage.kind.size
    if there < 0 or count ~= storage.numel or wanted > there then
      fail(where, 'storage %s needs %.0f elements of %s, the file holds %.0f in %.0f bytes', key, storage.numel, storage.kind.name, count,
        math.max(there, 0))
    end
    storage.start = at + 8
    at = storage.start + wanted
  end
  return materialise(value, function(storage)
    if not storage.start then fail(where, 'the data of storage %s is missing', storage.key) end
    return elements.storage(bytes + storage.start, storage.kind, storage.numel, mapping, where)
  end, where)
end

-- The value in a .pt file; see the head of this file for what Python types become.
function M.load(path)
  return file.with_mapping(path, function(bytes, size, mapping)
    if size >= 4 and file.u32(bytes) == 0x04034b50 then return load_zip(bytes, size, path, mapping) end
    local at = legacy_start(bytes, size)
    if not at then fail(path, 'not a PyTorch checkpoint: it is neither a zip archive nor a legacy file of torch.save') end
    return load_legacy(bytes, size, at, path, mapping)
  end)
end

-- ---- writing ----

local ORDERED_DICT = 'ccollections\nOrderedDict\n)R'
local classes = { f32 = 'Float', f64 = 'Double', i64 = 'Long', i32 = 'Int', u8 = 'Byte', f16 = 'Half', bf16 = 'BFloat16' }

local function text(s)
  if not is_utf8(s) then error(('pt.save: the text %q is not UTF-8'):format(s), 0) end
  return 'X' .. file.put_u32(#s) .. s
end

local function integer(n)
  if type(n) == 'number' and n >= -2^31 and n < 2^31 then return 'J' .. file.put_u32(n % 2^32) end
  local bytes = ffi.new('int64_t[1]', n)
  return '\138\8' .. ffi.string(bytes, 8)
end

local function number(n)
  if n == math.floor(n) and math.abs(n) <= 2^53 and 1 / n ~= -math.huge then return integer(n) end
  return 'G' .. ffi.string(ffi.new('double[1]', n), 8):reverse()
end

local function integers(list)
  local out = {}
  for i = 1, #list do out[i] = integer(list[i]) end
  return '(' .. table.concat(out) .. 't'
end

-- The Dict that a list of {name, tensor} is, as Module:state_dict gives it; else value.
local function as_dict(value)
  local dict = python.named(value)
  for _, x in ipairs(python.is_dict(dict) and dict.values or {}) do
    if not tensor.is_tensor(x) then return value end
  end
  return dict
end

-- Appends the pickle of value to out; records tensors in storages, each once.
local function emit(out, value, storages, depth)
  if depth > DEEPEST then error(('pt.save: tables are nested deeper than %d, or contain themselves'):format(DEEPEST), 0) end
  value = as_dict(value)
  local kind = type(value)
  if value == python.none then
    out[#out + 1] = 'N'
  elseif kind == 'boolean' then
    out[#out + 1] = value and '\136' or '\137'
  elseif kind == 'number' then
    out[#out + 1] = number(value)
  elseif kind == 'string' then
    out[#out + 1] = text(value)
  elseif ffi.istype('int64_t', value) then
    out[#out + 1] = integer(value)
  elseif tensor.is_tensor(value) then
    if not storages[value] then
      storages[#storages + 1] = value
      storages[value] = tostring(#storages - 1)
    end
    local shape = value.shape
    out[#out + 1] = 'ctorch._utils\n_rebuild_tensor_v2\n((' .. text 'storage' .. 'ctorch\n' .. classes[value.dtype] .. 'Storage\n'
      .. text(storages[value]) .. text 'cpu' .. integer(value:numel()) .. 'tQK\0' .. integers(shape)
      .. integers(elements.dense_stride(shape)) .. '\137' .. ORDERED_DICT .. 'tR'
  elseif python.is_dict(value) then
    out[#out + 1] = value.ordered and ORDERED_DICT or '}'
    out[#out + 1] = '('
    for k, v in value:pairs() do
      emit(out, k, storages, depth + 1)
      emit(out, v, storages, depth + 1)
    end
    out[#out + 1] = 'u'
  elseif kind == 'table' and (python.is_tuple(value) or value[1] ~= nil) then
    out[#out + 1] = python.is_tuple(value) and '(' or ']('
    for i = 1, #value do emit(out, value[i], storages, depth + 1) end
    out[#out + 1] = python.is_tuple(value) and 't' or 'e'
  elseif kind == 'table' then
    local names = {}
    for name in pairs(value) do
      if type(name) ~= 'string' then error('pt.save: a plain table must be a list or have string keys; use pt.dict', 0) end
      names[#names + 1] = name
    end
    table.sort(names)
    out[#out + 1] = '}('
    for _, name in ipairs(names) do
      out[#out + 1] = text(name)
      emit(out, value[name], storages, depth + 1)
    end
    out[#out + 1] = 'u'
  else
    error(('pt.save: cannot write a value of type %s'):format(kind), 0)
  end
end

-- Writes value: tensors, numbers (whole ones become int), strings, booleans, pt.none, Dict, tuples, Lua lists, and tables with string
-- keys (written as dict, keys sorted; an empty table is an empty dict). A list of {name, tensor} is written as an OrderedDict. A tensor that
-- occurs twice is stored once.
function M.save(path, value)
  local out, storages = { '\128\2' }, {}
  emit(out, value, storages, 0)
  out[#out + 1] = '.'
  local aligned = { align = 64 }
  zip.write(path, function(archive)
    local function add(name, pieces) archive:add('archive/' .. name, pieces, aligned) end
    add('data.pkl', table.concat(out))
    add('byteorder', 'little')
    for i, t in ipairs(storages) do
      local dense = tensor.dense(t:cpu())
      add('data/' .. i - 1, { { bytes = dense:ptr(), size = elements.bytes(dense) } })
    end
    add('version', '3\n')
  end)
end

return M
