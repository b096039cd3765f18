-- Op records: what one file in ops/ returns, and how it becomes a function and a method.
--
-- A record:  { inputs = {'x', 'w'}, forward = function(ctx, x, w, options...) return y end,
--              backward = function(ctx, dy) return dx, dw end, sample = function(g) return x, w, options... end }
--   inputs    names of the tensor arguments, which come first; a name that ends in '?' may be nil. list = true: the first
--             argument is a Lua list of tensors (cat)
--   forward   not differentiated, whatever ops it calls: the history of what it returns is backward. ctx:save(...) for backward, ctx:own(t) for
--             private buffers, ctx.grad: is a gradient wanted. ctx.needs[i]: does input i want one. ctx.adds = true: backward adds ctx.more [opt] to
--             dy by itself
--   backward  one gradient per input, nil or false where none is needed or defined (not nil for all), with list = true a list of them; absent: the
--             op is not differentiable
--   sample    valid random arguments from a generator (f64), for the gradient check; skip = 'why' where there is none
--   autocast  'low': computes in 16 bit under tycho.autocast; 'full': in float32 what comes in 16 bit; absent: in what comes (autocast.lua)
-- A record with compose = function(...) instead is a composite: plain Lua over other ops, differentiable by itself.
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'
local autograd = require 'tycho.autograd'
local dtypes = require 'tycho.dtype'
local finite = require 'tycho.finite'
local autocast = require 'tycho.autocast'

local M = {}
local is_tensor, alive, flows, unchanged = tensor.is_tensor, tensor.alive, autograd.flows, autograd.unchanged
local Context = autograd.Context

-- x, which must be a tensor whose memory is there, or nil where name ends in '?'. A forward's tensors beyond inputs are checked by it, too.
local function check_tensor(op, x, name)
  local optional = name:sub(-1) == '?'
  if x == nil and optional then return nil end
  if not is_tensor(x) then
    lib.raise(('%s: %s must be a tensor, got %s'):format(op, optional and name:sub(1, -2) or name, type(x)))
  end
  return alive(x, op)
end
M.check_tensor = check_tensor

-- Row numbers, an int64 tensor or a Lua list of them, as a tensor.
function M.check_index(op, index, name, device)
  if is_tensor(index) then return alive(index, op) end
  if type(index) ~= 'table' then lib.raise(('%s: %s must be an i64 tensor or a list of row numbers, got %s'):format(op, name, type(index))) end
  return tensor.tensor(index, 'i64', device)
end

local function new_context(name, grad, needs)
  return setmetatable({ op = name, grad = grad, needs = needs }, Context)
end

local function check_result(name, y)
  if not is_tensor(y) then lib.raise(('%s: its forward must return a tensor, got %s'):format(name, type(y))) end
end

-- What a forward returned, as a tensor that can have a history: its input, returned as it came, becomes a view.
local function of_its_own(name, y, inputs)
  check_result(name, y)
  for i = 1, #inputs do
    if y == inputs[i] then return y:detach() end
  end
  return y
end

-- A function from a record whose inputs are fixed arguments (at most 8 arguments in all).
local function fixed(name, record)
  local inputs = record.inputs
  local n = #inputs
  local forward, backward = record.forward, record.backward
  local n1, n2, n3, n4, n5, n6 = unpack(inputs)
  return function(a, b, c, d, e, f, g, h)
    if n >= 1 then a = check_tensor(name, a, n1) end
    if n >= 2 then b = check_tensor(name, b, n2) end
    if n >= 3 then c = check_tensor(name, c, n3) end
    if n >= 4 then d = check_tensor(name, d, n4) end
    if n >= 5 then e = check_tensor(name, e, n5) end
    if n >= 6 then f = check_tensor(name, f, n6) end
    local grad = false
    if backward and autograd.enabled() then
      grad = flows(a) or (n >= 2 and flows(b)) or (n >= 3 and flows(c)) or (n >= 4 and flows(d)) or (n >= 5 and flows(e))
        or (n >= 6 and flows(f))
    end
    if not grad then
      local ctx = new_context(name, false, nil)
      local y, extra = forward(ctx, a, b, c, d, e, f, g, h)
      ctx:release()
      check_result(name, y)
      if finite.is_on then finite.check(name, y, { a, b, c, d, e, f }) end
      if extra == nil then return y end
      return y, extra
    end
    local args, needs = { a, b, c, d, e, f }, {}
    for i = 1, n do
      args[i] = args[i] or false
      needs[i] = flows(args[i]) and true or false
    end
    for i = n + 1, 6 do args[i] = nil end
    local ctx = new_context(name, true, needs)
    local y, extra = forward(ctx, a, b, c, d, e, f, g, h)
    y = of_its_own(name, y, args)
    autograd.record_list(y, backward, ctx, args)
    if finite.is_on then finite.check(name, y, args) end
    if extra == nil then return y end
    return y, extra
  end
end

-- The tensors of a list, an op's argument, in a list of their own.
function M.check_list(op, list)
  if type(list) ~= 'table' or is_tensor(list) or #list == 0 then lib.raise(op .. ': expected a list of tensors, such as {a, b}') end
  local inputs = {}
  for i = 1, #list do inputs[i] = check_tensor(op, list[i], ('entry %d of the list'):format(i)) end
  return inputs
end

-- A function from a record whose first argument is a list of tensors.
local function listed(name, record)
  return function(list, ...)
    local inputs, needs, grad = M.check_list(name, list), {}, false
    autocast.unify(inputs)
    for i = 1, #list do
      needs[i] = flows(inputs[i]) and true or false
      grad = grad or needs[i]
    end
    grad = grad and autograd.enabled()
    local ctx = new_context(name, grad, needs)
    ctx.is_list = true
    local y = record.forward(ctx, inputs, ...)
    if grad then
      y = of_its_own(name, y, inputs)
      autograd.record_list(y, record.backward, ctx, inputs)
    else
      ctx:release()
      check_result(name, y)
    end
    if finite.is_on then finite.check(name, y, inputs) end
    return y
  end
end

-- ---- elementwise ops: one per row of map.def ----

local rows = {}
for _, row in ipairs(lib.rows) do rows[row.name] = row end

-- Whether a derivative of row reads a variable of map.def: only those are checked for changes in place.
local function reads(row, variable)
  local found = false
  for _, text in ipairs { row.da, row.db } do found = found or text:find('%f[%w_]' .. variable .. '%f[^%w_]') ~= nil end
  return found
end

local function unary(name)
  local symbol, back = 'ty_' .. name, 'ty_' .. name .. '_back'
  local row = rows[name]
  local reads_x, reads_y = reads(row, 'x'), reads(row, 'y')
  local function rule(saved, dy)
    if row.da == '0' then return nil end
    local x, y = dy, dy
    if reads_x then x = unchanged(saved[1], saved[2], name) end
    if reads_y then y = unchanged(saved[3], saved[4], name) end
    local dx = tensor.empty_like(x)
    lib.check(dx.lib[back](dx.c, dy.c, x.c, y.c), dx.lib)
    return dx
  end
  return function(x)
    x = check_tensor(name, x, 'x')
    local y = tensor.empty_like(x)
    lib.check(y.lib[symbol](y.c, x.c), y.lib)
    if autograd.enabled() and flows(x) then autograd.record(y, rule, { reads_x and x, x.storage.version, reads_y and y, y.storage.version }, x) end
    if finite.is_on then finite.check(name, y, { x }) end
    return y
  end
end

-- A fresh tensor of the shape that a and b broadcast to, in the memory order of the argument that has this shape.
local function broadcast_like(a, b, name, dtype)
  local ac, bc = a.c, b.c
  local an, bn = ac.ndim, bc.ndim
  local n = an > bn and an or bn
  local a_full, b_full = an == n, bn == n
  local shape
  for i = 1, n do
    local as = i <= an and tonumber(ac.shape[an - i]) or 1
    local bs = i <= bn and tonumber(bc.shape[bn - i]) or 1
    if as ~= bs then
      if as == 1 then a_full = false elseif bs == 1 then b_full = false
      else
        lib.raise(('%s: shapes %s and %s do not broadcast: sizes %d and %d in dim -%d'):format(name, tensor.shape_text(a),
          tensor.shape_text(b), as, bs, i))
      end
    end
  end
  if a_full then return tensor.empty_like(a, dtype) end
  if b_full then return tensor.empty_like(b, dtype) end
  shape = {}
  for i = 1, n do
    local as = i <= an and tonumber(ac.shape[an - i]) or 1
    local bs = i <= bn and tonumber(bc.shape[bn - i]) or 1
    shape[n - i + 1] = as == 1 and bs or as
  end
  return tensor.empty(shape, dtype, a.device)
end

-- g summed over the dims in which x was broadcast.
local function sum_to(g, x)
  if tensor.same_shape(g, x) then return g end
  local gn, xn = g.c.ndim, x.c.ndim
  local shape = {}
  for i = 1, gn do shape[i] = i > gn - xn and tonumber(x.c.shape[i - 1 - gn + xn]) or 1 end
  local sum = tensor.empty(shape, g.type.short and 'f32' or g.dtype, g.device)
  lib.check(sum.lib.ty_sum(sum.c, g.c), sum.lib)
  return gn == xn and sum or sum:reshape(x.shape)
end
M.sum_to = sum_to

local function negated(g)
  local y = tensor.empty_like(g)
  lib.check(y.lib.ty_neg(y.c, g.c), y.lib)
  return y
end

local function binary(name)
  local symbol = 'ty_' .. name
  local back_a, back_b = symbol .. '_back_a', symbol .. '_back_b'
  local row = rows[name]
  local reads_a, reads_b, reads_y = reads(row, 'a'), reads(row, 'b'), reads(row, 'y')
  local saves = reads_a or reads_b or reads_y
  local function side(kind, back, dy, a, b, y)
    if kind == '0' then return nil end
    if kind == 'g' then return dy end
    if kind == '-g' then return negated(dy) end
    local d = tensor.empty_like(dy)
    lib.check(d.lib[back](d.c, dy.c, a.c, b.c, y.c), d.lib)
    return d
  end
  local function rule(saved, dy, a, b)
    local a_value, b_value, y = dy, dy, dy
    if reads_a then a_value = unchanged(saved[1], saved[2], name) end
    if reads_b then b_value = unchanged(saved[3], saved[4], name) end
    if reads_y then y = unchanged(saved[5], saved[6], name) end
    local da = flows(a) and side(row.da, back_a, dy, a_value, b_value, y)
    local db = flows(b) and side(row.db, back_b, dy, a_value, b_value, y)
    return da and sum_to(da, a), db and sum_to(db, b)
  end
  return function(a, b)
    local dtype
    if type(a) == 'number' and is_tensor(b) then
      if name == 'div' then b = autocast.cast(b, 'f32') end -- as reciprocal
      dtype, a = b.dtype, tensor.scalar_like(b, a)
    elseif type(b) == 'number' and is_tensor(a) then
      dtype, b = a.dtype, tensor.scalar_like(a, b)
    end
    a, b = check_tensor(name, a, 'a'), check_tensor(name, b, 'b')
    if not dtype then
      dtype = a.type == b.type and a.dtype or autocast.widest(a.type, b.type)
      if not dtype then
        lib.raise(('%s: a is %s %s and b is %s %s; convert one with :to(dtype)'):format(name, a.dtype, tensor.shape_text(a), b.dtype,
          tensor.shape_text(b)))
      end
    end
    local y = broadcast_like(a, b, name, dtype)
    lib.check(y.lib[symbol](y.c, a.c, b.c), y.lib)
    if autograd.enabled() and (flows(a) or flows(b)) then
      local saved = saves
        and { reads_a and a, a.storage.version, reads_b and b, b.storage.version, reads_y and y, y.storage.version }
      autograd.record(y, rule, saved, a, b)
    end
    if finite.is_on then finite.check(name, y, { a, b }) end
    return y
  end
end

-- The function of a record, which may stand in any script: op.new { name = 'softsign', inputs = {'x'}, forward =, backward =, sample = }.
-- tycho.gradcheck(record) checks its gradient on its own sample.
function M.new(record)
  if type(record) ~= 'table' or not (record.compose or record.forward and record.inputs) then
    lib.raise('op.new: expected a record {name =, inputs = {names of the tensors}, forward = function(ctx, ...), backward = function(ctx, dy)}')
  end
  local name = record.name or 'custom op'
  if record.forward and not record.list and #record.inputs > 6 then
    lib.raise(('op.new: %s has %d inputs; 6 tensors are the most, a list of them (list = true) has no limit'):format(name, #record.inputs))
  end
  return autocast.wrap(name, record, record.compose or (record.list and listed or fixed)(name, record))
end

-- ---- finding by name ----

local added = {} -- records by name

local function loadable(module_name)
  if package.loaded[module_name] or package.preload[module_name] then return true end
  return package.searchpath(module_name, package.path) ~= nil
end

-- Makes a record with a name an op like those of ops/: x:NAME(...), tycho.NAME(...). Returns its function. A second one replaces the first.
function M.add(record)
  local name = type(record) == 'table' and record.name
  if type(name) ~= 'string' or not name:match '^%a[%w_]*$' then lib.raise('op.add: expected a record with a name') end
  local tycho = require 'tycho'
  if not added[name] and (tensor.zeros({})[name] ~= nil or tycho[name] ~= nil) then
    lib.raise(("op.add: tensors or tycho have a '%s' already; choose another name"):format(name))
  end
  local fn = M.new(record)
  added[name] = record
  tensor.Tensor[name], tycho[name] = fn, fn
  return fn
end

-- The record of a structured or composite op, or nil.
function M.record(name)
  if added[name] then return added[name] end
  if type(name) ~= 'string' or not name:match('^[%a][%w_]*$') or not loadable('tycho.ops.' .. name) then return nil end
  return require('tycho.ops.' .. name)
end

-- The function of an op by name: a row of map.def or a file in ops/; nil when there is neither.
function M.find(name)
  local row = rows[name]
  if row then return autocast.wrap(name, row, row.arity == 1 and unary(name) or binary(name)) end
  local record = M.record(name)
  if not record then return nil end
  return autocast.wrap(name, record, record.compose or (record.list and listed or fixed)(name, record))
end

-- A real dtype shared by the arguments, or an error; for records that allocate results.
function M.check_real(op, x, name)
  if not dtypes[x.dtype].real then
    lib.raise(('%s: %s must have a float dtype, got %s %s'):format(op, name or 'x', x.dtype, tensor.shape_text(x)))
  end
end

function M.check_whole(op, value, name)
  if type(value) ~= 'number' or value ~= math.floor(value) then
    lib.raise(('%s: %s must be a whole number, got %s'):format(op, name, tostring(value)))
  end
end

function M.check_count(op, value, name)
  M.check_whole(op, value, name)
  if value < 1 then lib.raise(('%s: %s must be at least 1, got %s'):format(op, name, tostring(value))) end
end
function M.check_number(op, value, name)
  if type(value) ~= 'number' then lib.raise(('%s: %s must be a number, got %s'):format(op, name, tostring(value))) end
end

-- All op names: rows and files, sorted.
function M.names()
  local names = {}
  for name in pairs(rows) do names[#names + 1] = name end
  for name in pairs(added) do names[#names + 1] = name end
  for file in require('lfs').dir(lib.root .. '/lua/tycho/ops') do
    local name = file:match('^([%w_]+)%.lua$')
    if name then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end
M.rows = rows

return M
