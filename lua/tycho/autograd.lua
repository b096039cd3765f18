-- The tape: a node for every op that a gradient flows through, walked backwards in the order of creation.
-- Rules live beside their forward in ops/; this file only moves gradients and frees what nobody needs any more.
local finite = require 'tycho.finite'
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'
local Tensor = tensor.Tensor

local M = {}
local enabled = true
local count = 0

function M.enabled() return enabled end

local function recording(on, fn, ...)
  local was = enabled
  enabled = on
  local function finish(ok, ...)
    enabled = was
    if not ok then error((...), 0) end
    return ...
  end
  return finish(xpcall(fn, lib.remember, ...))
end

-- Runs fn(...) without recording; returns what it returns.
function M.no_grad(fn, ...) return recording(false, fn, ...) end

-- Runs fn(...) with recording, inside tycho.no_grad too.
function M.with_grad(fn, ...) return recording(true, fn, ...) end

-- ---- recording ----

-- What the rule of a structured op keeps between forward and backward. Fields a rule sets itself are its own (sizes, flags).
local Context = {}
Context.__index = Context
M.Context = Context

-- A tensor that op saved for backward, unless it was changed in place since its storage had this version.
local function unchanged(t, version, op)
  tensor.alive(t, op .. ' backward')
  if t.storage.version ~= version then
    lib.raise(('%s saved a tensor of shape %s for backward that %s then changed in place; clone it first'):format(op, tensor.shape_text(t),
      tostring(t.storage.writer)))
  end
  return t
end
M.unchanged = unchanged

-- Remembers tensors for backward, with their versions.
function Context:save(a, b, c, d)
  self.saved_list = { a, b, c, d }
  self.versions = { a and a.storage.version, b and b.storage.version, c and c.storage.version, d and d.storage.version }
end

-- What save was given, unless one of them was changed in place since.
function Context:saved()
  local list = self.saved_list
  for i = 1, 4 do
    if list[i] then unchanged(list[i], self.versions[i], self.op) end
  end
  return list[1], list[2], list[3], list[4]
end

-- A tensor that no user can reach: freed as soon as the rule has run, or at once when no gradient is wanted.
function Context:own(t)
  local owned = self.owned
  if not owned then
    owned = {}
    self.owned = owned
  end
  owned[#owned + 1] = t
  return t
end

function Context:release()
  local owned = self.owned
  if owned then
    for i = 1, #owned do owned[i].storage:free() end
    self.owned = nil
  end
end

-- rawget, because a tensor looks absent fields up among its ops.
local function flows(t) return t and (rawget(t, 'node') or rawget(t, 'requires_grad')) end
M.flows = flows

-- A node is an array, several times cheaper to make than a table of fields: the rule (false once it has run), what the rule is given, the
-- node's number, the gradient that has arrived, and from FIRST on the op's inputs, false where there is none.
local RULE, CONTEXT, NUMBER, GRADIENT, FIRST = 1, 2, 3, 4, 5

-- Attaches a node to out: rule(context, dy, a, b) returns one gradient (or nil) per input.
function M.record(out, rule, context, a, b)
  count = count + 1
  out.node = { rule, context, count, false, a, b or false }
end

-- The same for a list of inputs, false where there is none.
function M.record_list(out, rule, context, inputs)
  M.record(out, rule, context, inputs[1], inputs[2])
  for i = 3, #inputs do out.node[FIRST + i - 1] = inputs[i] end
end

-- ---- walking back ----

-- Nodes whose gradient has arrived wait in a heap, the youngest on top: all that use a tensor are younger than the node that made it.
local function push(heap, node)
  local i = #heap + 1
  while i > 1 do
    local above = math.floor(i / 2)
    if heap[above][NUMBER] > node[NUMBER] then break end
    heap[i] = heap[above]
    i = above
  end
  heap[i] = node
end
local function pop(heap)
  local top, n = heap[1], #heap
  local node = heap[n]
  heap[n] = nil
  n = n - 1
  local i = 1
  while 2 * i <= n do
    local below = 2 * i
    if below < n and heap[below + 1][NUMBER] > heap[below][NUMBER] then below = below + 1 end
    if node[NUMBER] > heap[below][NUMBER] then break end
    heap[i] = heap[below]
    i = below
  end
  if n > 0 then heap[i] = node end
  return top
end

-- Gradients may share storage (add hands the same one to both inputs), so a storage counts the gradients that wait on it and is freed with the
-- last. What backward did not make has FOREIGN more pins, so that it never comes to that.
local FOREIGN = 2^40
local function unpin(g)
  local s = g.storage
  local pins = s.pins - 1
  if pins == 0 then
    s.pins = nil
    if not s.lasting then s:free() end
  else
    s.pins = pins ~= FOREIGN and pins or nil
  end
end
local function pin(g)
  local s = g.storage
  s.pins = (s.pins or FOREIGN) + 1
  return g
end
local function made_by_backward(s) s.pins = s.pins - FOREIGN end

-- Whether nobody else waits on g's storage, and g is all of it.
local function is_alone(g) return g.storage.pins == 1 and g:numel() * g.type.size == lib.bytes(g.storage) end

local function add_gradients(a, b)
  local sum = a
  if not is_alone(a) then
    sum = tensor.empty_like(a)
    sum.storage.pins = 1
  end
  lib.check(sum.lib.ty_add(sum.c, a.c, b.c), sum.lib)
  if sum ~= a then unpin(a) end
  unpin(b)
  return sum
end

local function same_layout(a, b)
  for i = 0, a.c.ndim - 1 do
    if a.c.shape[i] > 1 and a.c.stride[i] ~= b.c.stride[i] then return false end
  end
  return true
end

M.on_deposit = false -- graph.lua's: told of each leaf that a gradient arrives at, before it does

-- Adds g to a leaf's .grad, which always has the leaf's own memory order. g arrives pinned.
local function deposit(leaf, g)
  if M.on_deposit then M.on_deposit(leaf) end
  if leaf.grad then
    lib.check(leaf.lib.ty_add(leaf.grad.c, leaf.grad.c, g.c), leaf.lib)
    leaf.grad.storage.version = leaf.grad.storage.version + 1
    unpin(g)
    return
  end
  if is_alone(g) and same_layout(g, leaf) then
    g.storage.pins = nil
    leaf.grad = g
  else
    leaf.grad = tensor.copy_into(tensor.empty_like(leaf), g)
    unpin(g)
  end
  leaf.grad.storage.lasting = true
end

-- g, pinned, in the dtype of what it is for, or of input.gradient_type: rules need not convert what the op took in another one.
local function as_type_of(input, g)
  local type = rawget(input, 'gradient_type') or input.type
  if g.type == type then return g end
  local own = tensor.copy_into(tensor.empty_like(g, type.name), g)
  own.storage.pins = 1
  unpin(g)
  return own
end

-- Hands a pinned gradient on to the node or leaf that it is for.
local function pass_on(heap, input, g)
  g = as_type_of(input, g)
  local parent = rawget(input, 'node')
  if parent then
    local waiting = parent[GRADIENT]
    if waiting then
      parent[GRADIENT] = add_gradients(waiting, g)
    else
      parent[GRADIENT] = g
      push(heap, parent)
    end
  elseif rawget(input, 'requires_grad') then
    deposit(input, g)
  else
    unpin(g)
  end
end

-- Frees the storages of a list that were left to the tape (lib.leave) and that no other node keeps.
local function let_go(held)
  for i = 1, #held do
    local s = held[i]
    if s.holders then
      s.holders = s.holders - 1
      if s.holders == 0 and not s.lasting then s:free() end
    end
  end
end

local function second_time()
  lib.raise('backward ran through the same graph a second time: its saved tensors were released; compute the loss again')
end

local function run_node(heap, node)
  local rule, context, dy = node[RULE], node[CONTEXT], node[GRADIENT]
  if not rule then second_time() end
  local level = lib.enter()
  if #node <= FIRST + 1 then
    local a, b = node[FIRST], node[FIRST + 1]
    local da, db = rule(context, dy, a, b)
    if finite.is_on then
      finite.check_gradient(node, da)
      finite.check_gradient(node, db)
    end
    if da then pin(da) end
    if db then pin(db) end
    lib.leave(level, made_by_backward)
    if da then pass_on(heap, a, da) end
    if db then pass_on(heap, b, db) end
  else
    local grads = { rule(context, dy) }
    for i = FIRST, #node do
      if finite.is_on then finite.check_gradient(node, grads[i - FIRST + 1]) end
      if grads[i - FIRST + 1] then pin(grads[i - FIRST + 1]) end
    end
    lib.leave(level, made_by_backward)
    for i = FIRST, #node do
      if grads[i - FIRST + 1] then pass_on(heap, node[i], grads[i - FIRST + 1]) end
    end
  end
  if getmetatable(context) == Context then context:release() end
  if context and context.held then let_go(context.held) end
  node[RULE], node[CONTEXT], node[GRADIENT] = false, false, false
  for i = FIRST, #node do node[i] = false end
  unpin(dy)
end

local function walk(root, gradient)
  root[GRADIENT] = pin(gradient)
  local heap = { root }
  while heap[1] do run_node(heap, pop(heap)) end
end

-- Accumulates d self / d leaf into .grad of every leaf that requires it, and releases the graph. gradient: dL/d self, needed
-- unless self is a scalar.
function Tensor:backward(gradient)
  local root = self.node
  if not root then
    if self.requires_grad then lib.raise('backward: this tensor is a leaf; call backward on a loss computed from it') end
    lib.raise('backward: no gradient was recorded; set requires_grad on a parameter, and do not compute inside tycho.no_grad')
  end
  if not root[RULE] then second_time() end
  if not gradient then
    if self:numel() ~= 1 then
      lib.raise(('backward: expected a scalar loss, got shape %s; pass the gradient of this tensor'):format(tensor.shape_text(self)))
    end
    gradient = tensor.full(self.shape, 1, self.dtype, self.device)
  elseif not tensor.same_shape(gradient, self) then
    lib.raise(('backward: the gradient must have shape %s, got %s'):format(tensor.shape_text(self), tensor.shape_text(gradient)))
  end
  gradient = gradient:to(self.dtype)
  local level = lib.scope_level()
  local was_enabled = enabled
  enabled = false
  local ok, message = xpcall(walk, lib.remember, root, gradient)
  enabled = was_enabled
  if not ok then
    lib.unwind(level + 1)
    error(message, 0)
  end
end

-- The same values without history.
function Tensor:detach()
  return tensor.view_of(self, 0, function() end)
end

-- Marks a leaf: backward will fill .grad. Returns self.
function Tensor:requires_grad_(on)
  if self.node then lib.raise('requires_grad_: this tensor was computed; only leaves can be marked (detach it first)') end
  if not self.type.real then lib.raise('requires_grad_: expected a float dtype, got ' .. self.dtype) end
  self.requires_grad = on ~= false or nil
  return self
end

-- ---- scopes ----

-- The storages of the tensors in a table, put at the end of list.
local function add_storages(list, from)
  for _, value in pairs(from) do
    if tensor.is_tensor(value) then list[#list + 1] = value.storage end
  end
end

-- The storages that backward from these roots reads, and how many of the nodes after number `first` keep each. The nodes' contexts learn what they
-- hold.
local function held_for(roots, first)
  local holders, seen = {}, {}
  while #roots > 0 do
    local node = table.remove(roots)
    if node and node[NUMBER] > first and not seen[node] then
      seen[node] = true
      local context = node[CONTEXT]
      if context then
        local held = {}
        for _, from in ipairs { context, context.saved_list or {}, context.owned or {} } do add_storages(held, from) end
        context.held = held
        for _, s in ipairs(held) do holders[s] = (holders[s] or 0) + 1 end
      end
      for i = FIRST, #node do roots[#roots + 1] = node[i] and rawget(node[i], 'node') end
    end
  end
  return holders
end

-- Frees every tensor made inside fn except those that it returns (also inside one level of tables), leaf gradients, and tensors marked with
-- tycho.keep. What backward from the returned tensors needs is the tape's, which frees it as it walks. Returns what fn returns.
function M.scope(fn, ...)
  local level, first = lib.enter(), count
  local kept, roots = {}, {}
  local function mark(value, depth)
    if tensor.is_tensor(value) then
      roots[#roots + 1] = rawget(value, 'node')
      if not value.storage.pins then
        value.storage.pins = 1
        kept[#kept + 1] = value.storage
      end
    elseif depth > 0 and type(value) == 'table' then
      for _, v in pairs(value) do mark(v, depth - 1) end
    end
  end
  local function finish(ok, ...)
    if not ok then
      lib.unwind(level)
      error((...), 0)
    end
    for i = 1, select('#', ...) do mark((select(i, ...)), 1) end
    lib.leave(level, nil, held_for(roots, first))
    for i = 1, #kept do kept[i].pins = nil end
    return ...
  end
  return finish(xpcall(fn, lib.remember, ...))
end

-- Lets a tensor outlive the scopes that it was made in.
function M.keep(t)
  t.storage.lasting = true
  return t
end

return M
