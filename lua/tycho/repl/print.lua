-- Values as text for people: tensors with a summary and clipped values, modules with their parameters, tables with limits on depth, length, width
-- and cycles.
local M = {}

local EDGE = 3 -- rows or columns shown at each end of a long dim
local LONG = 8 -- a dim longer than this is clipped
local DEPTH, ENTRIES, STRING = 3, 24, 200

local function short(x)
  if x ~= x then return 'nan' end
  if x == math.huge then return 'inf' elseif x == -math.huge then return '-inf' end
  return ('%.4g'):format(x)
end

-- Positions of a dim that are shown; false stands for the gap.
local function shown(size)
  local out = {}
  if size <= LONG then
    for i = 0, size - 1 do out[#out + 1] = i end
    return out
  end
  for i = 0, EDGE - 1 do out[#out + 1] = i end
  out[#out + 1] = false
  for i = size - EDGE, size - 1 do out[#out + 1] = i end
  return out
end

-- One format for all shown values, so that columns line up.
local function formatter(values)
  local whole, largest, smallest = true, 0, math.huge
  for _, v in ipairs(values) do
    if v == v and math.abs(v) < math.huge then
      whole = whole and v == math.floor(v) and math.abs(v) < 1e9
      largest = math.max(largest, math.abs(v))
      if v ~= 0 then smallest = math.min(smallest, math.abs(v)) end
    end
  end
  local pattern = whole and '%.0f' or (largest >= 1e5 or (smallest < 1e-4 and largest / smallest > 1e4) or largest < 1e-3) and '%.4e' or '%.4f'
  local width = 0
  local function text(v)
    if v ~= v or math.abs(v) == math.huge then return short(v) end
    return pattern:format(v)
  end
  for _, v in ipairs(values) do width = math.max(width, #text(v)) end
  return function(v) return (' '):rep(width - #text(v)) .. text(v) end
end

local function summary(t)
  local flat = t:detach():cpu():to('f64'):contiguous()
  local p, n, read = flat:ptr(), flat:numel(), flat.type.read
  local low, high, sum, finite, bad = math.huge, -math.huge, 0, 0, 0
  for i = 0, n - 1 do
    local v = read(p, i)
    if v ~= v then
      bad = bad + 1
    else
      low, high, sum, finite = math.min(low, v), math.max(high, v), sum + v, finite + 1
    end
  end
  local mean, square = sum / finite, 0
  for i = 0, n - 1 do
    local v = read(p, i)
    if v == v then square = square + (v - mean) ^ 2 end
  end
  local nan = bad > 0 and ('  %d NaN'):format(bad) or ''
  if finite == 0 then return nan end
  return ('  min %s  max %s  mean %s  std %s%s'):format(short(low), short(high), short(mean), short(math.sqrt(square / finite)), nan)
end

-- A tensor: shape, dtype, statistics, values.
function M.tensor(t)
  if not t.storage.block then return ('tensor %s, freed when its scope ended'):format(require('tycho.tensor').shape_text(t)) end
  local shape, strides, values_of = t.shape, {}, t:cpu()
  for d = 1, #shape do strides[d] = values_of:stride(d - 1) end
  local head = #shape == 0 and 'scalar' or table.concat(shape, 'x')
  head = ('tensor %s %s %s%s'):format(head, t.dtype, t.device, t.node and '  computed' or t.requires_grad and '  parameter' or '')
  local p = values_of:ptr()
  if #shape == 0 then return ('%s  %s'):format(head, short(t:item())) end
  if t:numel() == 0 then return head .. '  empty' end
  local values = {}
  local function collect(dim, offset)
    if dim > #shape then
      values[#values + 1] = t.type.read(p, offset)
      return
    end
    for _, i in ipairs(shown(shape[dim])) do
      if i then collect(dim + 1, offset + i * strides[dim]) end
    end
  end
  collect(1, 0)
  local text, next_value = formatter(values), 0
  local lines = { head .. summary(t) }
  local function rows(dim, indent, lead)
    local pieces = {}
    if dim == #shape then
      for _, i in ipairs(shown(shape[dim])) do
        if i then next_value = next_value + 1 end
        pieces[#pieces + 1] = i and text(values[next_value]) or '...'
      end
      lines[#lines + 1] = lead .. '[' .. table.concat(pieces, ' ') .. ']'
      return
    end
    local first = true
    for _, i in ipairs(shown(shape[dim])) do
      local start = first and lead .. '[' or indent .. ' '
      if i then rows(dim + 1, indent .. ' ', start) else lines[#lines + 1] = indent .. ' ...' end
      first = false
    end
    lines[#lines] = lines[#lines] .. ']'
  end
  rows(1, '', '')
  return table.concat(lines, '\n')
end

local function key_text(key)
  if type(key) == 'string' and key:match('^[%a_][%w_]*$') then return key end
  return '[' .. (type(key) == 'string' and ('%q'):format(key) or tostring(key)) .. ']'
end

local function ordered(a, b)
  if type(a) == type(b) and (type(a) == 'number' or type(a) == 'string') then return a < b end
  return type(a) < type(b) or (type(a) == type(b) and tostring(a) < tostring(b))
end

local value_text

local function table_text(t, depth, seen, width)
  if seen[t] then return '<cycle>' end
  if depth > DEPTH then return '{...}' end
  seen[t] = true
  local keys, pieces = {}, {}
  for key in pairs(t) do keys[#keys + 1] = key end
  table.sort(keys, ordered)
  local list = #t
  for i, key in ipairs(keys) do
    if i > ENTRIES then
      pieces[#pieces + 1] = ('... %d more'):format(#keys - ENTRIES)
      break
    end
    local text = value_text(t[key], depth + 1, seen, width)
    local position = type(key) == 'number' and key >= 1 and key <= list
    pieces[#pieces + 1] = position and text or key_text(key) .. ' = ' .. text
  end
  seen[t] = nil
  local flat = '{' .. table.concat(pieces, ', ') .. '}'
  if #flat <= width - 2 * depth and not flat:find('\n') then return flat end
  local pad = ('  '):rep(depth)
  return '{\n' .. pad .. table.concat(pieces, ',\n' .. pad) .. '\n' .. ('  '):rep(depth - 1) .. '}'
end

-- A module: a line for each tensor of its state, the first and the last of many.
local function module_text(module)
  local state = module:state_dict()
  local lines = { ('module of %d parameters in %d tensors'):format(module:num_parameters(), #state) }
  for i, entry in ipairs(state) do
    if i <= ENTRIES / 2 or i > #state - ENTRIES / 2 then
      lines[#lines + 1] = ('  %s  %s%s'):format(entry[1], require('tycho.tensor').shape_text(entry[2]), entry[2].requires_grad and '' or '  buffer')
    elseif lines[#lines] ~= '  ...' then
      lines[#lines + 1] = '  ...'
    end
  end
  return table.concat(lines, '\n')
end

local function is_module(v)
  local Module = package.loaded['tycho.nn.Module']
  return type(Module) == 'table' and Module.is_module(v)
end

local function string_text(v)
  local text = ('%q'):format(v):gsub('\\\n', '\\n')
  return #text > STRING and ('%s..." (%d bytes)'):format(text:sub(1, STRING), #v) or text
end

function value_text(v, depth, seen, width)
  if type(v) == 'string' then return depth > 1 and string_text(v) or v end
  if type(v) ~= 'table' then return tostring(v) end
  if is_module(v) then return depth > 1 and ('<module of %d parameters>'):format(v:num_parameters()) or module_text(v) end
  local meta = getmetatable(v)
  if type(meta) == 'table' and rawget(meta, '__tostring') then
    if depth > 1 and require('tycho.tensor').is_tensor(v) then
      return ('<tensor %s %s>'):format(table.concat(v.shape, 'x'), v.dtype)
    end
    return tostring(v)
  end
  return table_text(v, depth, seen, width)
end

-- Any value; strings are quoted inside tables. options: {width = columns that a table may take on one line, default 100}.
function M.value(v, options) return value_text(v, 1, {}, options and options.width or 100) end

return M
