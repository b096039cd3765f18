-- Elementwise kernels from expressions: the texts that one would write by hand, CUDA C with 16-byte accesses where memory allows and a loop in C.
local lib = require 'tycho.lib'
local signature = require 'tycho.kernel.signature'

local M = {}

local EACH = 4 -- elements of a CUDA thread

local cuda = [[
struct alignas(EACH * sizeof(real)) several { real v[EACH]; };
__global__ void NAME(PARAMETERS) {
  int64_t first = EACH * thread_index();
  if (first >= n) return;
  bool whole = first + EACH <= n && (ADDRESSES) % sizeof(several) == 0;
  several VECTORS;
  if (whole) {
    LOADS
  } else {
    for (int64_t j = 0, i = first; j < EACH; j++, i += i + 1 < n) { LOADS_EACH }
  }
  for (int j = 0; j < EACH; j++) {
    VALUES
    RESULTS
  }
  if (whole) {
    STORES
  } else {
    for (int64_t j = 0; j < EACH && first + j < n; j++) { STORES_EACH }
  }
}
]]

local c = [[
void NAME(PARAMETERS) {
  POINTERS
#pragma omp parallel for simd if (n > 16384)
  for (int64_t i = 0; i < n; i++) {
    VALUES
    RESULTS
  }
}
]]

-- pattern once for each of names: 'NAME' in it is the name.
local function each(names, pattern, between)
  local parts = {}
  for i, name in ipairs(names) do parts[i] = (pattern:gsub('NAME', name)) end
  return table.concat(parts, between or ' ')
end

-- Words that the texts have a meaning for.
local taken = { y = true, dy = true, n = true, i = true, j = true, first = true, whole = true, several = true, real = true }

-- Raises for names that would be two things in a text, or none.
function M.check_names(kernel, inputs, numbers)
  local seen = {}
  for _, list in ipairs { inputs, numbers } do
    for _, name in ipairs(list) do
      local is_name = type(name) == 'string' and name:match '^[%a_][%w_]*$' and not name:match '_all$' and not name:match '_vector$'
      if not is_name or taken[name] or seen[name] then
        lib.raise(("kernel %s: '%s' cannot be the name of %s; choose another"):format(kernel, tostring(name),
          seen[name] and 'two parameters' or 'an input or a number'))
      end
      seen[name] = true
    end
  end
end

-- {cuda =, c =} of a kernel that computes results, a list of {name, expression}, from real inputs and numbers, lists of names.
function M.texts(name, results, inputs, numbers)
  local caller, outputs, parameters, all = signature.caller(), {}, {}, {}
  for i, result in ipairs(results) do
    outputs[i] = result[1]
    parameters[#parameters + 1] = 'real *' .. result[1]
    all[#all + 1] = result[1]
  end
  for _, input in ipairs(inputs) do
    parameters[#parameters + 1] = 'const real *' .. input
    all[#all + 1] = input
  end
  for _, number in ipairs(numbers) do parameters[#parameters + 1] = 'real ' .. number end
  parameters[#parameters + 1] = 'int64_t n'
  local function assigned(target)
    local lines = {}
    for i, result in ipairs(results) do
      local place = signature.place(result[2], caller) or caller
      lines[i] = ('%s =\n%s\n%s\n;'):format(target:gsub('NAME', result[1]), signature.directive(place, name), result[2])
    end
    return table.concat(lines, '\n')
  end
  local function fill(text, parts)
    parts.NAME, parts.PARAMETERS, parts.EACH = name, table.concat(parameters, ', '), tostring(EACH)
    return (text:gsub('%f[%w_][A-Z_]+%f[^%w_]', parts))
  end
  return {
    cuda = fill(cuda, {
      ADDRESSES = each(all, '(uintptr_t)NAME', ' | '), VECTORS = each(all, 'NAME_vector', ', '),
      LOADS = each(inputs, 'NAME_vector = *(const several *)(NAME + first);'), LOADS_EACH = each(inputs, 'NAME_vector.v[j] = NAME[i];'),
      VALUES = each(inputs, 'const real NAME = NAME_vector.v[j];'), RESULTS = assigned 'NAME_vector.v[j]',
      STORES = each(outputs, '*(several *)(NAME + first) = NAME_vector;'),
      STORES_EACH = each(outputs, 'NAME[first + j] = NAME_vector.v[j];'),
    }),
    c = fill(c, {
      POINTERS = each(inputs, 'const real *NAME_all = NAME;') .. each(outputs, 'real *NAME_all = NAME;'),
      VALUES = each(inputs, 'const real NAME = NAME_all[i];'), RESULTS = assigned 'NAME_all[i]',
    }),
    per_thread = EACH,
  }
end

return M
