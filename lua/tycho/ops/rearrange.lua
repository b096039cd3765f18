-- rearrange(x, pattern, sizes): dims by name, split, joined and put in another order: x:rearrange('b (v t) c -> (b v) t c', { v = 2 }). Brackets
-- hold dims that are one; 1 is a dim of size 1; '...' stands for any further dims. sizes: of names that the shape does not tell. After einops.
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'

local plans = {} -- pattern -> {left, right}: each a list of groups, a group being a list of names, or '...'

local function parse_side(text, fail)
  local groups, seen, i = {}, {}, 1
  local function name_in(group, name)
    if name == '1' then return end
    if not name:match('^[%a_][%w_]*$') then fail(("'%s' is no name of a dim"):format(name)) end
    if seen[name] then fail(("'%s' stands twice on one side"):format(name)) end
    seen[name] = true
    group[#group + 1] = name
  end
  while true do
    i = text:match('^%s*()', i)
    if i > #text then break end
    local inside, behind = text:match('^%(([^()]*)%)()', i)
    local dots, after = text:match('^(%.%.%.)()', i)
    local word, beyond = text:match('^([^%s().]+)()', i)
    if inside then
      local group = {}
      for name in inside:gmatch('%S+') do name_in(group, name) end
      groups[#groups + 1], i = group, behind
    elseif dots then
      if seen['...'] then fail "'...' stands twice on one side" end
      seen['...'] = true
      groups[#groups + 1], i = '...', after
    elseif word then
      local group = {}
      name_in(group, word)
      groups[#groups + 1], i = group, beyond
    else
      fail(("'%s' is not understood; brackets must be closed and may not be nested"):format(text:sub(i)))
    end
  end
  return groups, seen
end

local function parse(pattern, fail)
  if plans[pattern] then return plans[pattern] end
  local left_text, right_text = pattern:match('^(.-)%->(.*)$')
  if not left_text then fail "expected 'dims -> dims'" end
  local left, left_names = parse_side(left_text, fail)
  local right, right_names = parse_side(right_text, fail)
  for name in pairs(left_names) do
    if not right_names[name] then fail(("'%s' is on the left alone; rearrange keeps every dim"):format(name)) end
  end
  for name in pairs(right_names) do
    if not left_names[name] then fail(("'%s' is on the right alone; rearrange makes no dims"):format(name)) end
  end
  plans[pattern] = { left, right }
  return plans[pattern]
end

local function rearrange(x, pattern, sizes)
  if sizes ~= nil and type(sizes) ~= 'table' then lib.raise('rearrange: expected sizes by name, such as { v = 2 }, got ' .. type(sizes)) end
  sizes = sizes or {}
  local function fail(message)
    local given = {}
    for name, size in pairs(sizes) do given[#given + 1] = ('%s = %s'):format(name, tostring(size)) end
    table.sort(given)
    lib.raise(("rearrange '%s' of %s%s: %s"):format(tostring(pattern), tensor.is_tensor(x) and tensor.shape_text(x) or type(x),
      #given > 0 and ' with ' .. table.concat(given, ', ') or '', message))
  end
  if not tensor.is_tensor(x) or type(pattern) ~= 'string' then fail 'expected a tensor and a pattern' end
  local plan = parse(pattern, fail)
  local left, right = plan[1], plan[2]

  -- How many dims '...' stands for.
  local dots = nil
  for _, group in ipairs(left) do dots = group == '...' and x.ndim - (#left - 1) or dots end
  if dots and dots < 0 or not dots and #left ~= x.ndim then
    fail(('the left side names %s%d dims, the tensor has %d'):format(dots and 'at least ' or '', dots and #left - 1 or #left, x.ndim))
  end

  -- The tensor with every name a dim of its own: names in order, and their sizes.
  local names, shape, size_of, used, dim = {}, {}, {}, {}, 0
  local function add(name, size)
    names[#names + 1], shape[#shape + 1], size_of[name] = name, size, size
  end
  for _, group in ipairs(left) do
    if group == '...' then
      for k = 1, dots do add('...' .. k, x:size(dim + k - 1)) end
      dim = dim + dots
    else
      local size, known, unknown = x:size(dim), 1, nil
      for _, name in ipairs(group) do
        local given = sizes[name]
        used[name] = true
        if given ~= nil and not (type(given) == 'number' and given >= 1 and given == math.floor(given)) then
          fail(('%s must be a whole number >= 1'):format(name))
        end
        if given then
          known = known * given
        elseif unknown then
          fail(("the sizes of '%s' and '%s' are not known; give one of them"):format(unknown, name))
        else
          unknown = name
        end
      end
      if unknown and size % known ~= 0 or not unknown and size ~= known then
        fail(("dim %d of size %d is no '%s'"):format(dim, size, #group == 0 and '1' or table.concat(group, ' ')))
      end
      for _, name in ipairs(group) do add(name, sizes[name] or size / known) end
      dim = dim + 1
    end
  end
  for name in pairs(sizes) do
    if not used[name] then fail(("the pattern has no dim '%s'"):format(tostring(name))) end
  end

  local at, order, out = {}, {}, {}
  for i, name in ipairs(names) do at[name] = i - 1 end
  for _, group in ipairs(right) do
    if group == '...' then
      for k = 1, dots do order[#order + 1], out[#out + 1] = at['...' .. k], size_of['...' .. k] end
    else
      local size = 1
      for _, name in ipairs(group) do
        order[#order + 1] = at[name]
        size = size * size_of[name]
      end
      out[#out + 1] = size
    end
  end
  return x:reshape(shape):permute(order):reshape(out)
end

return {
  compose = rearrange,
  sample = function(g) return g:normal_tensor({ 3, 4, 5 }, 'f64'), 'a (b c) ... -> ... (c a) b', { b = 2 } end,
}
