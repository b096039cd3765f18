-- einsum(pattern, a, b, ...): products summed over the letters that the result does not have: 'bij,bjk->bik' is a batched matrix product,
-- 'ij->j' a sum of rows, 'i,j->ij' an outer product, 'ii->i' a diagonal. Letters name dims, and sizes must agree; '...' stands for any further dims,
-- which broadcast from the right. Without '->' the result has '...' and then, in alphabetical order, the letters that stand once in all. Two operands
-- at a time, from the left, by matmul.
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'

-- What was asked, for errors: the pattern and all shapes.
local function asked(pattern, operands)
  local shapes = {}
  for i, x in ipairs(operands) do shapes[i] = tensor.is_tensor(x) and tensor.shape_text(x) or type(x) end
  return ("einsum '%s' of %s: "):format(tostring(pattern), #shapes > 0 and table.concat(shapes, ', ') or 'nothing')
end

-- ---- patterns ----

local plans = {} -- pattern -> {inputs = list of lists of letters, output = letters}, which does not depend on sizes
local DOTS = '...'

local function letters_of(text, fail)
  local list, i, dots = {}, 1, false
  while i <= #text do
    local c = text:sub(i, i + 2) == DOTS and DOTS or text:sub(i, i)
    if c == DOTS and dots then fail(("'...' stands twice in '%s'"):format(text)) end
    if c ~= DOTS and not c:match('%a') then fail(("'%s' is no letter; write one letter for each dim, as in 'bij,bjk->bik'"):format(c)) end
    list[#list + 1], i, dots = c, i + #c, dots or c == DOTS
  end
  return list
end

local function parse(pattern, fail)
  if plans[pattern] then return plans[pattern] end
  local text = pattern:gsub('%s', '')
  local left, right = text:match('^(.-)%->(.*)$')
  left = left or text
  local plan, count = { inputs = {} }, {}
  for part in (left .. ','):gmatch('([^,]*),') do
    local list = letters_of(part, fail)
    plan.inputs[#plan.inputs + 1] = list
    for _, c in ipairs(list) do count[c] = (count[c] or 0) + 1 end
  end
  if not right then
    local once = {}
    for c, n in pairs(count) do
      if n == 1 and c ~= DOTS then once[#once + 1] = c end
    end
    table.sort(once)
    right = (count[DOTS] and DOTS or '') .. table.concat(once)
  end
  plan.output = letters_of(right, fail)
  local seen = {}
  for _, c in ipairs(plan.output) do
    if not count[c] then fail(("'%s' of the result is in no operand"):format(c)) end
    if seen[c] then fail(("'%s' stands twice in the result"):format(c)) end
    seen[c] = true
  end
  plans[pattern] = plan
  return plan
end

-- The letters with the count dims of '...' by name, from '...[-count]' to '...[-1]'.
local function spelled(letters, count)
  local out = {}
  for _, c in ipairs(letters) do
    if c == DOTS then
      for k = count, 1, -1 do out[#out + 1] = ('%s[-%d]'):format(DOTS, k) end
    else
      out[#out + 1] = c
    end
  end
  return out
end

-- How many dims '...' stands for in an operand.
local function dims_of_dots(x, letters, i, fail)
  local named, dots = #letters, 0
  for _, c in ipairs(letters) do
    if c == DOTS then named, dots = named - 1, x.ndim - #letters + 1 end
  end
  if named + dots ~= x.ndim or dots < 0 then
    fail(("'%s' names %d dims, operand %d has %d"):format(table.concat(letters), named, i, x.ndim))
  end
  return dots
end

-- ---- operands ----

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

-- Sizes by letter. A dim of '...' may be 1 where it is longer in another operand.
local function sizes_of(operands, spellings, fail)
  local sizes, owner = {}, {}
  for i, letters in ipairs(spellings) do
    for k, c in ipairs(letters) do
      local size, was = operands[i]:size(k - 1), sizes[c]
      local is_free = c:sub(1, #DOTS) == DOTS
      if was and was ~= size and not (is_free and (was == 1 or size == 1)) then
        fail(("'%s' is %d in operand %d and %d in operand %d"):format(c, was, owner[c], size, i))
      end
      if not was or (is_free and was == 1) then sizes[c], owner[c] = size, i end
    end
  end
  return sizes
end

-- x without dims that broadcast, and with one dim for the diagonal of those with the same letter.
local function plain(x, letters, sizes)
  local left, i = {}, 1
  for _, c in ipairs(letters) do
    if x:size(#left) == sizes[c] then left[#left + 1] = c else x = x:select(#left, 0) end
  end
  while i < #left do
    local twin
    for k = i + 1, #left do twin = twin or left[k] == left[i] and k end
    if twin then
      x = x:diagonal(i - 1, twin - 1)
      local c = table.remove(left, twin)
      table.remove(left, i)
      left[#left + 1] = c
    else
      i = i + 1
    end
  end
  return x, left
end

local function einsum(pattern, ...)
  local operands = { ... }
  local function fail(message) lib.raise(asked(pattern, operands) .. message) end
  if type(pattern) ~= 'string' then fail 'the pattern comes first, as in einsum(\'ij,jk->ik\', a, b)' end
  local plan = parse(pattern, fail)
  if #plan.inputs ~= #operands then fail(('the pattern has %d operands'):format(#plan.inputs)) end
  local spellings, dots = {}, 0
  for i, letters in ipairs(plan.inputs) do
    if not tensor.is_tensor(operands[i]) then fail(('operand %d must be a tensor'):format(i)) end
    local own = dims_of_dots(operands[i], letters, i, fail)
    spellings[i], dots = spelled(letters, own), math.max(dots, own)
  end
  local sizes, output = sizes_of(operands, spellings, fail), spelled(plan.output, dots)
  local operand = operands[1]
  for i, x in ipairs(operands) do operands[i], spellings[i] = plain(x, spellings[i], sizes) end
  local y, letters
  for i, x in ipairs(operands) do
    -- Letters that somebody asks for later.
    local wanted = set_of(output)
    for k = i + 1, #operands do
      for _, c in ipairs(spellings[k]) do wanted[c] = true end
    end
    local keep = set_of(joined(letters or {}, output))
    for c in pairs(wanted) do keep[c] = true end
    local own, own_letters = reduced(x, spellings[i], keep)
    if y then y, letters = contract(y, letters, own, own_letters, wanted, sizes) else y, letters = own, own_letters end
    y, letters = reduced(y, letters, wanted)
  end
  y = ordered(y, letters, output)
  return y == operand and y:expand(y.shape) or y -- 'ij->ij', too, makes a tensor of its own
end

return {
  compose = einsum,
  sample = function(g)
    return 'bij,...jk,kk->i...b', g:normal_tensor({ 2, 3, 4 }, 'f64'), g:normal_tensor({ 2, 4, 5 }, 'f64'), g:normal_tensor({ 5, 5 }, 'f64')
  end,
}
