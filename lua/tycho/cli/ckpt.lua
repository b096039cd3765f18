-- checkpoints and arrays: inspect FILE, diff A B, convert IN OUT
local lfs = require 'lfs'
local lib = require 'tycho.lib'
local elements = require 'tycho.io.elements'
local nearest = require 'tycho.nearest'
local python = require 'tycho.io.python'
local tensor = require 'tycho.tensor'
local tensors = require 'tycho.io.tensors'

local usage = [[
usage: ./tycho ckpt inspect FILE       names, element types, shapes, totals
       ./tycho ckpt diff A B           what differs; exit status 0 when nothing
                                       does, 1 otherwise
       ./tycho ckpt convert IN OUT [strip=PREFIX]
                                       writes OUT as its ending says: .pt,
                                       .safetensors or .npz; strip=module. takes
                                       this prefix from the names
Reads .pt (PyTorch), .safetensors, .npz and .npy, known by what they hold.]]

local COLUMNS = 80
local WIDEST_NAME = 52 -- longer ones push their row to the right

-- ---- text ----

local function thousands(n)
  local text = ('%.0f'):format(n):reverse():gsub('(%d%d%d)', '%1,'):reverse()
  return (text:gsub('^,', ''))
end

local function plural(n, word) return ('%s %s%s'):format(thousands(n), word, n == 1 and '' or 's') end

local function size_text(bytes)
  if bytes < 2^10 then return ('%d bytes'):format(bytes) end
  if bytes < 2^20 then return ('%.1f KiB'):format(bytes / 2^10) end
  return ('%.1f MiB'):format(bytes / 2^20)
end

-- A plain value on one line. Strings are cut where no line could hold them.
local function value_text(value)
  if type(value) == 'string' then
    return '"' .. value:sub(1, 1000):gsub('[%c"\\]', function(c) return ('\\x%02x'):format(c:byte()) end) .. '"'
  end
  if type(value) == 'number' then
    local text = ('%.14g'):format(value)
    return tonumber(text) == value and text or ('%.17g'):format(value)
  end
  if type(value) ~= 'table' or value == python.none then return (tostring(value):gsub('LL$', '')) end
  local parts = {}
  for i = 1, math.min(#value, COLUMNS) do parts[i] = value_text(value[i]) end
  local text = table.concat(parts, ', ')
  if python.is_dict(value) then return '{}' end
  return (python.is_tuple(value) and '(%s)' or '[%s]'):format(text)
end

-- What a value is, in about room columns.
local function what(value, room)
  if tensor.is_tensor(value) then
    local shape = table.concat(value.shape, 'x')
    return ('%-4s %s'):format(elements.dtype_in_file(value), shape == '' and 'scalar' or shape)
  end
  local text = value_text(value)
  if #text <= room then return text end
  local count = type(value) == 'table' and (' (%d)'):format(#value) or ''
  return text:sub(1, math.max(room - 3 - #count, 10)):gsub('[\192-\255][\128-\191]*$', '') .. '...' .. count
end

local function name_width(entries)
  local width = 0
  for _, entry in ipairs(entries) do
    if #entry[1] <= WIDEST_NAME then width = math.max(width, #entry[1]) end
  end
  return width
end

-- { name, value } of everything in a file: tensors, plain values, then metadata. Also the format.
local function load(path)
  local value, metadata, format = tensors.load(path)
  local entries, keys = tensors.entries(value, path), {}
  for key in pairs(metadata) do keys[#keys + 1] = key end
  table.sort(keys)
  for _, key in ipairs(keys) do entries[#entries + 1] = { 'metadata ' .. key, metadata[key] } end
  for _, entry in ipairs(entries) do entry[1] = entry[1]:gsub('%c', '?') end
  return entries, format
end

-- ---- inspect ----

local format_names = { pt = 'PyTorch', safetensors = 'safetensors', npz = 'NumPy archive', npy = 'NumPy array' }

-- Sums by the first part of the names, in order: { name, tensors, elements, bytes }; the last is the sum of all.
local function totals(entries)
  local rows, by_name, all = {}, {}, { 'all', tensors = 0, elements = 0, bytes = 0 }
  for _, entry in ipairs(entries) do
    local name, value = entry[1], entry[2]
    if tensor.is_tensor(value) then
      local first = name:match('^[^./]*')
      local row = by_name[first] or { first, tensors = 0, elements = 0, bytes = 0 }
      if not by_name[first] then by_name[first], rows[#rows + 1] = row, row end
      for _, sum in ipairs { row, all } do
        sum.tensors, sum.elements = sum.tensors + 1, sum.elements + value:numel()
        sum.bytes = sum.bytes + value:numel() * elements[elements.dtype_in_file(value)].size
      end
    end
  end
  rows[#rows + 1] = all
  return rows
end

local function inspect(path)
  local entries, format = load(path)
  local rows = totals(entries)
  local all = rows[#rows]
  print(('%s: %s, %s, %s, %s'):format(path, format_names[format], size_text(lfs.attributes(path, 'size')), plural(all.tensors, 'tensor'),
    plural(all.elements, 'element')))
  local width = name_width(entries)
  for _, entry in ipairs(entries) do
    print(('%-' .. width .. 's  %s'):format(entry[1], what(entry[2], COLUMNS - 2 - math.max(width, #entry[1]))))
  end
  if #rows < 3 or #rows > all.tensors then return end
  print ''
  for _, row in ipairs(rows) do
    print(('%-' .. name_width(rows) .. 's  %13s  %20s  %11s'):format(row[1], plural(row.tensors, 'tensor'), plural(row.elements, 'element'),
      size_text(row.bytes)))
  end
end

-- ---- diff ----

local function same_int64(p, i) return p[i] end -- exact beyond 2^53

-- Largest absolute difference, and the L2 norm of the difference over that of a. A NaN equals a NaN, and nothing else.
local function distance(a, b)
  a, b = tensor.dense(a), tensor.dense(b)
  local p, q, read = a:ptr(), b:ptr(), a.dtype == 'i64' and same_int64 or a.type.read
  local largest, square, norm = 0, 0, 0
  for i = 0, a:numel() - 1 do
    local x, y = read(p, i), read(q, i)
    if x ~= y and (x == x or y == y) then
      local d = math.abs(tonumber(x - y))
      if not (d <= largest) then largest = d end
      square = square + d * d
    end
    if x == x then norm = norm + tonumber(x) ^ 2 end
  end
  return largest, math.sqrt(square) / math.sqrt(norm)
end

-- Of plain values and lists of them.
local function is_same(a, b)
  if type(a) ~= 'table' or type(b) ~= 'table' or a == python.none or b == python.none then return a == b or a ~= a and b ~= b end
  if getmetatable(a) ~= getmetatable(b) or #a ~= #b then return false end
  for i = 1, #a do
    if not is_same(a[i], b[i]) then return false end
  end
  return true
end

-- How b differs from a, in words; nil when it does not.
local function difference(a, b, room)
  local function both() return ('%s -> %s'):format(what(a, room / 2 - 2), what(b, room / 2 - 2)) end
  if not tensor.is_tensor(a) and not tensor.is_tensor(b) then return not is_same(a, b) and both() or nil end
  if not tensor.is_tensor(a) or not tensor.is_tensor(b) then return both() end
  if not tensor.same_shape(a, b) or elements.dtype_in_file(a) ~= elements.dtype_in_file(b) then return both() end
  local largest, relative = distance(a, b)
  return largest ~= 0 and ('max abs %.2g  rel L2 %.2g'):format(largest, relative) or nil
end

local function diff(path_a, path_b)
  local a, b = load(path_a), load(path_b)
  local in_a, in_b = {}, {}
  for _, entry in ipairs(a) do in_a[entry[1]] = entry end
  for _, entry in ipairs(b) do in_b[entry[1]] = entry end
  local width = math.max(name_width(a), name_width(b))
  local counts = { ['!'] = 0, ['<'] = 0, ['>'] = 0 }
  local function row(mark, name, text)
    counts[mark] = counts[mark] + 1
    print(('%s %-' .. width .. 's  %s'):format(mark, name, text))
  end
  local room, equal = COLUMNS - 4 - width, 0
  for _, entry in ipairs(a) do
    local name, other = entry[1], in_b[entry[1]]
    local text = other and difference(entry[2], other[2], room)
    if not other then
      row('<', name, what(entry[2], room))
    elseif text then
      row('!', name, text)
    else
      equal = equal + 1
    end
  end
  for _, entry in ipairs(b) do
    if not in_a[entry[1]] then row('>', entry[1], what(entry[2], room)) end
  end
  print(('%d equal, %d differ (!), %d only in %s (<), %d only in %s (>)'):format(equal, counts['!'], counts['<'], path_a, counts['>'], path_b))
  return equal == #a and #a == #b and 0 or 1
end

-- ---- convert ----

-- value with prefix taken from the keys of every Dict in it, and the number of keys that had it.
local function strip(value, prefix, where)
  local count = 0
  local function visit(v)
    if python.is_dict(v) then
      local out = python.dict({}, v.ordered)
      for key, child in v:pairs() do
        if type(key) == 'string' and #key > #prefix and key:sub(1, #prefix) == prefix then count, key = count + 1, key:sub(#prefix + 1) end
        if out:get(key) ~= nil then error(('%s: without %s two values have the name %s'):format(where, prefix, key), 0) end
        out:set(key, visit(child))
      end
      return out
    end
    if type(v) ~= 'table' or tensor.is_tensor(v) then return v end
    for i = 1, #v do v[i] = visit(v[i]) end
    return v
  end
  return visit(value), count
end

local function convert(from, to, option)
  local prefix = option and option:match('^strip=(.+)$')
  if option and not prefix then error(("ckpt convert: expected strip=PREFIX, got '%s'"):format(option), 0) end
  tensors.format_to_write(to)
  if lfs.attributes(to) then error(('%s exists already; remove it first, or choose another name'):format(to), 0) end
  lib.on_interrupt('raise')
  local value, metadata = tensors.load(from)
  if prefix then
    local hits
    value, hits = strip(value, prefix, from)
    if hits == 0 then error(('%s: no name begins with %s'):format(from, prefix), 0) end
  end
  local entries = tensors.entries(value, from)
  local left_out = tensors.save(to, value, metadata)
  local count, widened = 0, {}
  for _, entry in ipairs(entries) do
    local t = entry[2]
    if tensor.is_tensor(t) then
      count = count + 1
      local text = ('%s became %s'):format(elements.dtype_in_file(t), t.dtype)
      if elements.dtype_in_file(t) ~= t.dtype then
        if not widened[text] then widened[#widened + 1] = text end
        widened[text] = (widened[text] or 0) + 1
      end
    end
  end
  print(('%s: %s, %s'):format(to, plural(count, 'tensor'), size_text(lfs.attributes(to, 'size'))))
  table.sort(widened)
  for _, text in ipairs(widened) do print(('%s in %s'):format(text, plural(widened[text], 'tensor'))) end
  for _, name in ipairs(left_out) do print(('left out, because this format has no place for it: %s'):format(name)) end
end

-- ---- the command line ----

local verbs = { inspect = { inspect, 1, 1, 'one file' }, diff = { diff, 2, 2, 'two files' }, convert = { convert, 2, 3, 'two files' } }

return function(arguments)
  local name = arguments[1]
  if not name or name == '--help' or name == '-h' then
    print(usage)
    return name and 0 or 1
  end
  local verb = verbs[name]
  if not verb then
    local near = nearest(name, { 'inspect', 'diff', 'convert' })
    error(("ckpt has no '%s'; %s"):format(name, near and ("did you mean '%s'?"):format(near) or 'it has inspect, diff and convert'), 0)
  end
  local count = #arguments - 1
  if count < verb[2] or count > verb[3] then
    error(('ckpt %s takes %s, got %d; ./tycho ckpt --help shows how'):format(name, verb[4], count), 0)
  end
  return verb[1](unpack(arguments, 2))
end
