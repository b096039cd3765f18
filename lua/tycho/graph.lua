-- Steps that a device repeats without Lua. tycho.graph(fn) gives a function like fn(inputs): for each signature of the inputs the first call runs fn
-- as it is, the second records what it asks of the device as a graph (a CUDA graph), and from then on a call is one launch, with the same results
-- bit for bit. On the CPU, and under break_on_nan, fn is called.
--
--   local step = tycho.graph(function(inputs)
--     optimizer:zero_grad()
--     local loss = model(inputs.x):mse(inputs.y)
--     loss:backward()
--     optimizer:step()
--     return loss
--   end)
--   for ... do optimizer.lr = ...; local loss = step { x = x, y = y } end
--
-- inputs: a table of tensors, numbers, strings, booleans and such tables. Shapes, dtypes and memory orders of the tensors and the other values are
-- the signature; tensors on the CPU arrive in fn on the device of the others, and from the second call on those with gaps without them (so a sum
-- over one may round otherwise).
-- What it returns (tensors, also inside one level of tables) and the gradients that it leaves in .grad are true until the next launch of any graph.
-- A graph has the addresses and numbers of its capture: tensors that fn reads besides its inputs must stay where they are, numbers and functions
-- that it takes from elsewhere must be named in depends, or step:reset() must be called when they change. In a captured step nothing can wait for the
-- device (item, tolist, cpu) or draw random numbers: that raises, and so does what waits through it.
local ffi = require 'ffi'
local autograd = require 'tycho.autograd'
local backward = require 'tycho.backward'
local finite = require 'tycho.finite'
local lib = require 'tycho.lib'
local scopes = require 'tycho.scope'
local storages = require 'tycho.storage'
local tensor = require 'tycho.tensor'

local M = {}
local Step = {}
Step.__index = Step

local MOST = 16 -- signatures of a step that are kept

local host_work = false -- while a step is captured: what M.on_host was given

-- Runs fn, which must not need what the device computes: now, and for a captured step before each launch of it instead.
function M.on_host(fn)
  if host_work then host_work[#host_work + 1] = fn else fn() end
end

-- ---- signatures ----

-- What decides how an op goes through a constant: where it is, its dtype and shape, and the order of its memory. What has gaps becomes row-major.
local function form_text(t)
  local order = {}
  for i = 1, tensor.is_packed(t.c) and t.ndim or 0 do order[i] = t:size(i - 1) > 1 and t:stride(i - 1) or 1 end
  return ('%s %s %s %s'):format(t.device, t.dtype, tensor.shape_text(t), table.concat(order, ' '))
end

-- A copy of value with visit(tensor) in the place of each tensor; words, a list, takes what describes value.
local function map(value, words, visit)
  if tensor.is_tensor(value) then
    if value.node or value.requires_grad then lib.raise('graph: inputs are constants, one is part of a gradient; detach it') end
    words[#words + 1] = form_text(value)
    return visit(value)
  elseif type(value) == 'table' and not getmetatable(value) then
    local name_words, name_of, out = {}, {}, {}
    for name in pairs(value) do
      local word = ('%s %q'):format(type(name), tostring(name))
      name_words[#name_words + 1], name_of[word] = word, name
    end
    table.sort(name_words)
    words[#words + 1] = '{'
    for _, word in ipairs(name_words) do
      local name = name_of[word]
      words[#words + 1] = word
      out[name] = map(value[name], words, visit)
    end
    words[#words + 1] = '}'
    return out
  elseif value == nil or type(value) == 'number' or type(value) == 'string' or type(value) == 'boolean' then
    words[#words + 1] = type(value) == 'number' and ('%.17g'):format(value) or ('%s %q'):format(type(value), tostring(value))
    return value
  end
  lib.raise(('graph: inputs are tensors, numbers, strings, booleans and tables of them, got a %s'):format(type(value)))
end

-- Whether an entry of the tables in depends is another than at the last call.
local function has_changed(self)
  local changed = false
  for i, from in ipairs(self.depends) do
    local known = self.known[i] or {}
    self.known[i] = known
    for name, value in pairs(from) do
      changed = changed or known[name] ~= value
      known[name] = value
    end
    for name in pairs(known) do
      if from[name] == nil then changed, known[name] = true, nil end
    end
  end
  return changed
end

-- ---- what a launch leaves ----

-- By the last launch of any graph, as all write over it. Leaves that nobody else has any more go.
local function nothing() return { storages = {}, by_block = {}, gradients = setmetatable({}, { __mode = 'k' }) } end
local left = nothing()

local function take_back()
  for leaf, gradient in pairs(left.gradients) do
    if leaf.grad == gradient then leaf.grad = nil end
  end
  for _, storage in ipairs(left.storages) do storage:free() end
  left = nothing()
end

-- A tensor of the graphs' memory as what is needed to make it again; that memory is free for other captures.
local Plan = {}
local function plan_of(t)
  t.storage:free()
  return setmetatable({ c = t.c, type = t.type, block = t.storage }, Plan)
end
local function is_plan(value) return getmetatable(value) == Plan end
local function made_from(plan)
  local known = left.by_block[plan.block] -- views of one result share its changes and its versions
  local t = tensor.borrow(plan.c, plan.type, known)
  if known then return t end
  t.storage.lasting = true
  left.storages[#left.storages + 1], left.by_block[plan.block] = t.storage, t.storage
  return t
end

-- values with fn(value) in the place of those that is_one chooses, also inside one level of tables.
local function each_result(values, is_one, fn)
  local out = { n = values.n }
  for i = 1, values.n do
    local value = values[i]
    if is_one(value) then
      out[i] = fn(value)
    elseif type(value) == 'table' and not getmetatable(value) then
      out[i] = {}
      for name, v in pairs(value) do out[i][name] = is_one(v) and fn(v) or v end
    else
      out[i] = value
    end
  end
  return out
end

-- ---- capturing ----

local function pack(...) return { n = select('#', ...), ... } end

-- Records fn(inputs) on device: the graph, what the host does before each launch, the results, gradients and the storages that it changes.
local function record(fn, inputs, device)
  local before, gradients, work = storages.versions(), {}, {}
  lib.check(device.float.ty_capture_begin(), device.float)
  lib.capturing, host_work = device, work
  backward.on_deposit = function(leaf)
    if leaf.grad and not gradients[leaf] then
      lib.raise('graph: a captured step adds to a gradient that was there before it; call zero_grad inside of the step')
    end
    gradients[leaf] = true
  end
  local results
  local ok, message = xpcall(function()
    results = pack(scopes.scope(fn, inputs))
    for _, entry in ipairs(storages.list()) do
      local s = entry.storage
      local is_kept = s.lasting and before[s] == nil
      for leaf in pairs(is_kept and gradients or {}) do is_kept = is_kept and not (leaf.grad and leaf.grad.storage == s) end
      if is_kept then
        lib.raise(('graph: the captured step keeps a tensor of %d bytes that it makes itself; make it before the step, or return it'):format(
          entry.bytes))
      end
    end
  end, lib.remember)
  lib.capturing, host_work, backward.on_deposit = false, false, false
  local handle = ffi.new 'ty_graph *[1]'
  local status = device.float.ty_capture_end(ok and handle or nil)
  if not ok or status ~= 0 then
    for leaf in pairs(gradients) do leaf.grad = nil end -- nobody has computed them
    if not ok then error(message, 0) end
    lib.check(status, device.float)
  end
  local graph = { handle = ffi.gc(handle[0], device.float.ty_graph_free), library = device.float, work = work, gradients = {}, changed = {} }
  graph.results = each_result(results, function(v) return tensor.is_tensor(v) and before[v.storage] == nil end, plan_of)
  for leaf in pairs(gradients) do
    if leaf.grad then graph.gradients[leaf], leaf.grad = plan_of(leaf.grad), nil end
  end
  for storage, version in pairs(before) do
    if storage.block and storage.version ~= version then graph.changed[storage] = storage.version - version end
  end
  return graph
end

local function count_changes(storage, count)
  storage.version, storage.writer = storage.version + count, 'a captured step'
end

-- given: the inputs, which the step sees as stands.
local function launch(graph, given, stands)
  take_back()
  for _, fn in ipairs(graph.work) do fn() end
  lib.check(graph.library.ty_graph_launch(graph.handle), graph.library)
  for storage, count in pairs(graph.changed) do count_changes(storage, count) end
  for k, stand in ipairs(stands) do
    local count = graph.changed[stand.storage]
    if count and given[k].device == stand.device then -- what came from another device was a copy before, too
      tensor.copy_into(given[k], stand)
      count_changes(given[k].storage, count)
    end
  end
  for leaf, gradient in pairs(graph.gradients) do
    leaf.grad = made_from(gradient)
    left.gradients[leaf] = leaf.grad
  end
  local results = each_result(graph.results, is_plan, made_from)
  return unpack(results, 1, results.n)
end

-- The tensor that stands for input number i in captured steps; one for all signatures in which it has this form.
local function stand_in(self, i, t, device)
  local key = i .. ' ' .. form_text(t)
  self.inputs[key] = self.inputs[key] or scopes.keep(tensor.empty_like(t, nil, device.name))
  return self.inputs[key]
end

-- ---- steps ----

-- Drops what was captured: the next call of each signature begins anew.
function Step:reset()
  self.entries, self.count, self.inputs = {}, 0, {}
end

function Step:__call(inputs)
  local words, given, first, device = {}, {}, {}, nil -- first: tensor -> its first number among the inputs
  map(inputs, words, function(t)
    given[#given + 1] = t
    if first[t] then words[#words + 1] = 'as input ' .. first[t] else first[t] = #given end
    if t.device ~= 'cpu' then device = device or lib.devices[t.device] end
  end)
  if not device or lib.capturing then return self.fn(inputs) end
  local function placed() return map(inputs, {}, function(t) return t:to(device.name) end) end
  if finite.is_on then return scopes.scope(self.fn, placed()) end
  if has_changed(self) or self.count > MOST then self:reset() end
  local key = table.concat(words, ' ')
  local entry = self.entries[key]
  if not entry then
    local results = pack(scopes.scope(self.fn, placed()))
    self.entries[key], self.count = {}, self.count + 1
    return unpack(results, 1, results.n)
  end
  if not entry.graph then
    take_back()
    storages.collect()
    storages.clear_cache() -- the graphs' memory will hold what the steps before had in the cache
    local stands, i = {}, 0
    for k, t in ipairs(given) do stands[k] = stands[first[t]] or stand_in(self, k, t, device) end
    entry.graph = record(self.fn, map(inputs, {}, function() i = i + 1; return stands[i] end), device)
    entry.inputs = stands
  end
  autograd.no_grad(function()
    for k, t in ipairs(given) do tensor.copy_into(entry.inputs[k], t) end
  end)
  return launch(entry.graph, given, entry.inputs)
end

-- depends [opt]: a list of tables. When an entry of one has another value than at the call before, all that was captured is dropped.
return setmetatable(M, { __call = function(_, fn, options)
  local self = setmetatable({ fn = fn, depends = options and options.depends or {}, known = {} }, Step)
  self:reset()
  return self
end })
