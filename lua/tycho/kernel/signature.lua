-- The signature of a kernel's body and the place of its text in a Lua file. A body's parameters are, in any order: pointers that it writes (outputs),
-- const pointers (inputs), `int64_t n`, the number of elements of the first output, and numbers.
local lib = require 'tycho.lib'

local M = {}

-- C types by name: the dtype of a tensor behind a pointer ('real': that of the real inputs), and the field of an argument's slot.
M.types = {
  real = { dtype = 'real' }, float = { dtype = 'f32', field = 'f32' }, double = { dtype = 'f64', field = 'f64' },
  int64_t = { dtype = 'i64', field = 'i64', whole = true }, int32_t = { dtype = 'i32', field = 'i32', whole = true },
  int = { dtype = 'i32', field = 'i32', whole = true }, uint8_t = { dtype = 'u8', field = 'u8', whole = true },
}

-- Comments as blanks, so that nothing in them counts.
local function without_comments(text)
  return (text:gsub('/%*.-%*/', ' '):gsub('//[^\n]*', ' '))
end

local function parameter(text, name)
  local constant = text:find '%f[%w_]const%f[^%w_]' ~= nil
  local bare = text:gsub('%f[%w_]const%f[^%w_]', ' '):gsub('__restrict__', ' '):gsub('%f[%w_]restrict%f[^%w_]', ' ')
  local type, star, own = bare:match '^%s*([%w_]+)%s*(%**)%s*([%w_]+)%s*$'
  if not type or #star > 1 or not M.types[type] then
    lib.raise(("kernel %s: cannot read the parameter '%s'; expected real, float, double, int64_t, int32_t, int or uint8_t, or a pointer to one")
      :format(name, text:match '^%s*(.-)%s*$'))
  end
  return { type = type, pointer = star == '*', output = star == '*' and not constant, name = own, text = text:match '^%s*(.-)%s*$' }
end

-- {name, outputs, inputs, numbers, all (lists of parameters)} of the function that text defines: the first __global__ one of CUDA C, else the first
-- that is not static.
function M.parse(text)
  local plain = without_comments(text):gsub('__launch_bounds__%s*%b()', '')
  local name, list = plain:match '__global__%s+void%s+([%a_][%w_]*)%s*(%b())'
  if not name then
    for before, candidate, found in plain:gmatch '([%w_]*)%s+void%s+([%a_][%w_]*)%s*(%b())' do
      if before ~= 'static' and before ~= 'inline' then
        name, list = candidate, found
        break
      end
    end
  end
  if not name then name, list = plain:match '^%s*void%s+([%a_][%w_]*)%s*(%b())' end
  if not name then lib.raise('kernel: the text defines no function; expected __global__ void NAME(real *y, const real *x, int64_t n) {...}') end
  local s = { name = name, all = {}, outputs = {}, inputs = {}, numbers = {} }
  for piece in list:sub(2, -2):gmatch '[^,]+' do
    local p = parameter(piece, name)
    s.all[#s.all + 1] = p
    local kind = p.output and s.outputs or p.pointer and s.inputs or p.name ~= 'n' and s.numbers
    if kind then kind[#kind + 1] = p end
  end
  if #s.outputs == 0 then lib.raise(('kernel %s: no parameter is written to; a result is a pointer without const'):format(name)) end
  return s
end

-- ---- the place ----

local own_folder = lib.root .. '/lua/tycho/kernel/'

-- The file and the line of the innermost call from outside this folder: {path (nil at the prompt), line}.
function M.caller()
  for level = 2, 60 do
    local info = debug.getinfo(level, 'Sl')
    if not info then break end
    local path = info.source:match '^@(.*)'
    if info.currentline > 0 and not (path and path:sub(1, #own_folder) == own_folder) then return { path = path, line = info.currentline } end
  end
  return { line = 1 }
end

-- Where text stands: the file and the line of its first character when the calling file holds it word for word from the call on; else nil.
function M.place(text, caller)
  local file = caller.path and io.open(caller.path, 'r')
  if not file then return nil end
  local whole = file:read '*a'
  file:close()
  local from = 1
  for _ = 2, caller.line do from = (whole:find('\n', from, true) or #whole) + 1 end
  -- The call's line may be the first or the last of a long call, by the version of LuaJIT.
  local at = whole:find(text, from, true) or whole:find(text, 1, true)
  if not at then return nil end
  local _, lines = whole:sub(1, at - 1):gsub('\n', '')
  return { path = caller.path, line = lines + 1 }
end

-- Tells a compiler that the next line is that place.
function M.directive(place, name)
  return ('#line %d "%s"'):format(place.line, ((place.path or 'kernel ' .. name):gsub('[\\"]', '\\%0')))
end

-- A body's text of a language for its compiler: its function has C's linkage, its lines are those of the Lua file.
function M.declared(body, language)
  local parameters = {}
  for i, p in ipairs(body.signature.all) do parameters[i] = p.text end
  return ('%svoid %s(%s);\n%s\n%s\n'):format(language == 'cuda' and 'extern "C" __global__ ' or '', body.name, table.concat(parameters, ', '),
    M.directive(body.places[language], body.name), body[language])
end

return M
