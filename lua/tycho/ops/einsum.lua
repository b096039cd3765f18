-- einsum(pattern, a, b, ...): products summed over the letters that the result does not have: 'bij,bjk->bik' is a batched matrix product,
-- 'ij->j' a sum of rows, 'i,j->ij' an outer product. Letters name dims, sizes must agree, a letter stands once in an operand and in the result;
-- without '->' the result has, in alphabetical order, the letters that stand once in all. Two operands at a time, from the left, by matmul.
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'

-- What was asked, for errors: the pattern and all shapes.
local function asked(pattern, operands)
  local shapes = {}
  for i, x in ipairs(operands) do shapes[i] = tensor.is_tensor(x) and tensor.shape_text(x) or type(x) end
  return ("einsum '%s' of %s: "):format(tostring(pattern), #shapes > 0 and table.concat(shapes, ', ') or 'nothing')
end

local plans = {} -- pattern -> {inputs = list of lists of letters, output = letters}, which does not depend on sizes

local function letters_of(text, fail)
  local list, seen = {}, {}
  for c in text:gmatch('.') do
    if not c:match('%a') then fail(("'%s' is no letter; write one letter for each dim, as in 'bij,bjk->bik'"):format(c)) end
    if seen[c] then fail(("'%s' stands twice in '%s'; diagonals are not supported"):format(c, text)) end
    seen[c] = true
    list[#list + 1] = c
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
      if n == 1 then once[#once + 1] = c end
    end
    table.sort(once)
    right = table.concat(once)
  end
  plan.output = letters_of(right, fail)
  for _, c in ipairs(plan.output) do
    if not count[c] then fail(("'%s' of the result is in no operand"):format(c)) end
  end
  plans[pattern] = plan
  return plan
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
  local plan = parse(pattern, fail)
  if #plan.inputs ~= #operands then fail(('the pattern has %d operands'):format(#plan.inputs)) end
  local sizes, owner = {}, {}
  for i, letters in ipairs(plan.inputs) do
    local x = operands[i]
    if not tensor.is_tensor(x) then fail(('operand %d must be a tensor'):format(i)) end
    if x.ndim ~= #letters then fail(("'%s' names %d dims, operand %d has %d"):format(table.concat(letters), #letters, i, x.ndim)) end
    for k, c in ipairs(letters) do
      if sizes[c] and sizes[c] ~= x:size(k - 1) then
        fail(("'%s' is %d in operand %d and %d in operand %d"):format(c, sizes[c], owner[c], x:size(k - 1), i))
      end
      sizes[c], owner[c] = x:size(k - 1), i
    end
  end
  local y, letters
  for i, x in ipairs(operands) do
    -- Letters that somebody asks for later.
    local wanted = set_of(plan.output)
    for k = i + 1, #operands do
      for _, c in ipairs(plan.inputs[k]) do wanted[c] = true end
    end
    local keep = set_of(joined(letters or {}, plan.output))
    for c in pairs(wanted) do keep[c] = true end
    local own, own_letters = reduced(x, plan.inputs[i], keep)
    if y then y, letters = contract(y, letters, own, own_letters, wanted, sizes) else y, letters = own, own_letters end
    y, letters = reduced(y, letters, wanted)
  end
  return ordered(y, letters, plan.output)
end

return {
  compose = einsum,
  sample = function(g)
    return 'bij,bjk,k->ib', g:normal_tensor({ 2, 3, 4 }, 'f64'), g:normal_tensor({ 2, 4, 5 }, 'f64'), g:normal_tensor({ 5 }, 'f64')
  end,
}
