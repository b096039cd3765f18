-- einsum(pattern, a, b, ...): products summed over the letters that the result does not have: 'bij,bjk->bik' is a batched matrix product,
-- 'ij->j' a sum of rows, 'i,j->ij' an outer product. Letters name dims, sizes must agree; a letter twice in one operand takes its diagonal
-- ('ii->i', and 'ii->' the trace); '...' stands for the dims that have no letter, which broadcast and come where the result has its '...'.
-- Without '->' the result has those, then in alphabetical order the letters that stand once in all. Two operands at a time, from the left, by matmul.
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'

-- What was asked, for errors: the pattern and all shapes.
local function asked(pattern, operands)
  local shapes = {}
  for i, x in ipairs(operands) do shapes[i] = tensor.is_tensor(x) and tensor.shape_text(x) or type(x) end
  return ("einsum '%s' of %s: "):format(tostring(pattern), #shapes > 0 and table.concat(shapes, ', ') or 'nothing')
end

-- What stands in for '...': one name for each dim, counted from the last, so that those of all operands line up.
local function unnamed(i) return '...' .. i end

-- The names of the dims of 'ab...c' with the given number of dims behind its '...'.
local function names_of(text, count, fail)
  local list, place = {}, nil
  for at, part in text:gsub('%.%.%.', '.'):gmatch('()(.)') do
    if part == '.' and text:find('...', 1, true) then
      if place then fail(("'...' stands twice in '%s'"):format(text)) end
      place = at
      for i = count, 1, -1 do list[#list + 1] = unnamed(i) end
    elseif part:match('%a') then
      list[#list + 1] = part
    else
      fail(("'%s' is no letter; write one letter for each dim, as in 'bij,bjk->bik', or '...' for those without"):format(part))
    end
  end
  return list
end

-- The names of each operand's dims and of the result's.
local function parse(pattern, operands, fail)
  local text = pattern:gsub('%s', '')
  local left, right = text:match('^(.-)%->(.*)$')
  left = left or text
  local parts, inputs, most, count = {}, {}, 0, {}
  for part in (left .. ','):gmatch('([^,]*),') do parts[#parts + 1] = part end
  if #parts ~= #operands then fail(('the pattern has %d operands'):format(#parts)) end
  for i, part in ipairs(parts) do
    local x = operands[i]
    if not tensor.is_tensor(x) then fail(('operand %d must be a tensor'):format(i)) end
    local letters, has_more = #names_of(part, 0, fail), part:find('...', 1, true)
    if has_more and x.ndim < letters or not has_more and x.ndim ~= letters then
      fail(("'%s' names %s%d dims, operand %d has %d"):format(part, has_more and 'at least ' or '', letters, i, x.ndim))
    end
    inputs[i] = names_of(part, x.ndim - letters, fail)
    most = math.max(most, x.ndim - letters)
    for _, c in ipairs(inputs[i]) do count[c] = (count[c] or 0) + 1 end
  end
  if not right then
    local once = {}
    for c, n in pairs(count) do
      if n == 1 and #c == 1 then once[#once + 1] = c end
    end
    table.sort(once)
    right = (most > 0 and '...' or '') .. table.concat(once)
  elseif most > 0 and not right:find('...', 1, true) then
    fail "the operands' '...' is not in the result; sums need letters"
  end
  local output, seen = names_of(right, most, fail), {}
  for _, c in ipairs(output) do
    if seen[c] then fail(("'%s' stands twice in the result"):format(c)) end
    if not count[c] then fail(("'%s' of the result is in no operand"):format(c)) end
    seen[c] = true
  end
  return inputs, output
end

local function set_of(list)
  local set = {}
  for i, c in ipairs(list) do set[c] = i end
  return set
end

-- x with dims in the order of wanted (a list of letters, all of x's).
local function ordered(x, letters, wanted)
  local at, order, is_same = set_of(letters), {}, true
  for i, c in ipairs(wanted) do
    order[i] = at[c] - 1
    is_same = is_same and order[i] == i - 1
  end
  return is_same and x or x:permute(order)
end

-- x summed over the letters that are not in keep.
local function reduced(x, letters, keep)
  local left, dims = {}, {}
  for i, c in ipairs(letters) do
    if keep[c] then left[#left + 1] = c else dims[#dims + 1] = i - 1 end
  end
  if #dims > 0 then x = x:sum(dims) end
  return x, left
end

local function joined(...)
  local out = {}
  for _, list in ipairs { ... } do
    for _, c in ipairs(list) do out[#out + 1] = c end
  end
  return out
end

-- x and the names of its dims, each name once: broadcast dims of size 1 are dropped, a name that stands twice takes the diagonal.
local function distinct(x, names, sizes)
  local i = 1
  names = { unpack(names) }
  while i <= #names do
    local other = set_of(names)[names[i]] -- the last one of the name
    if #names[i] > 1 and sizes[names[i]] ~= x:size(i - 1) then
      x = x:select(i - 1, 0)
      table.remove(names, i)
    elseif other ~= i then
      x = x:diagonal(i - 1, other - 1)
      local name = table.remove(names, other)
      table.remove(names, i)
      names[#names + 1] = name
    else
      i = i + 1
    end
  end
  return x, names
end

-- The product of a and b: letters in both and wanted later are batched, those in both and wanted no more are summed.
local function contract(a, a_letters, b, b_letters, wanted, sizes)
  local in_a, in_b = set_of(a_letters), set_of(b_letters)
  local batch, summed, rows, columns = {}, {}, {}, {}
  for _, c in ipairs(a_letters) do
    local list = not in_b[c] and rows or wanted[c] and batch or summed
    list[#list + 1] = c
  end
  for _, c in ipairs(b_letters) do
    if not in_a[c] then columns[#columns + 1] = c end
  end
  local function size(list)
    local n = 1
    for _, c in ipairs(list) do n = n * sizes[c] end
    return n
  end
  local x = ordered(a, a_letters, joined(batch, rows, summed)):reshape { size(batch), size(rows), size(summed) }
  local y = ordered(b, b_letters, joined(batch, summed, columns)):reshape { size(batch), size(summed), size(columns) }
  local letters, shape = joined(batch, rows, columns), {}
  for i, c in ipairs(letters) do shape[i] = sizes[c] end
  return x:matmul(y):reshape(shape), letters
end

local function einsum(pattern, ...)
  local operands = { ... }
  local function fail(message) lib.raise(asked(pattern, operands) .. message) end
  if type(pattern) ~= 'string' then fail 'the pattern comes first, as in einsum(\'ij,jk->ik\', a, b)' end
  local inputs, output = parse(pattern, operands, fail)
  local sizes, owner = {}, {}
  for i, names in ipairs(inputs) do
    for k, c in ipairs(names) do
      local size, broadcasts = operands[i]:size(k - 1), #c > 1
      if sizes[c] and sizes[c] ~= size and not (broadcasts and (sizes[c] == 1 or size == 1)) then
        local name = broadcasts and ("dim -%s of '...'"):format(c:match '%d+') or ("'%s'"):format(c)
        fail(('%s is %d in operand %d and %d in operand %d'):format(name, sizes[c], owner[c], size, i))
      end
      if not (broadcasts and sizes[c] and size == 1) then sizes[c], owner[c] = size, i end
    end
  end
  for i, x in ipairs(operands) do operands[i], inputs[i] = distinct(x, inputs[i], sizes) end
  local y, letters
  for i, x in ipairs(operands) do
    -- Letters that somebody asks for later.
    local wanted = set_of(output)
    for k = i + 1, #operands do
      for _, c in ipairs(inputs[k]) do wanted[c] = true end
    end
    local keep = set_of(joined(letters or {}, output))
    for c in pairs(wanted) do keep[c] = true end
    local own, own_letters = reduced(x, inputs[i], keep)
    if y then y, letters = contract(y, letters, own, own_letters, wanted, sizes) else y, letters = own, own_letters end
    y, letters = reduced(y, letters, wanted)
  end
  return ordered(y, letters, output)
end

return {
  compose = einsum,
  sample = function(g)
    return '...ij,jk,kk->i...', g:normal_tensor({ 2, 3, 4 }, 'f64'), g:normal_tensor({ 4, 5 }, 'f64'), g:normal_tensor({ 5, 5 }, 'f64')
  end,
}
