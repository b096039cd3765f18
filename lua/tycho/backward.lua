-- Tensor:backward: walks the tape from the youngest node to the oldest, moves gradients, and frees what nobody needs any more.
local autograd = require 'tycho.autograd'
local finite = require 'tycho.finite'
local lib = require 'tycho.lib'
local storages = require 'tycho.storage'
local tensor = require 'tycho.tensor'
local Tensor = tensor.Tensor
local Context = autograd.Context
local RULE, CONTEXT, NUMBER, GRADIENT, FIRST = unpack(autograd.FIELDS)

local M = {}

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
-- Lets go of the gradient that a node has, and of the part of it that its rule adds by itself.
local function unpin_incoming(node)
  local context = node[CONTEXT]
  local more = context and context.more
  unpin(node[GRADIENT])
  node[GRADIENT] = false
  if more then
    context.more = nil
    unpin(more)
  end
end
local function made_by_backward(s) s.pins = s.pins - FOREIGN end

-- Whether nobody else waits on g's storage, and g is all of it.
local function is_alone(g)
  return g.storage.pins == 1 and g:numel() * g.type.size == storages.bytes(g.storage) and tensor.is_packed(g.c)
end

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

M.on_deposit = false -- graph.lua's: told of each leaf that a gradient arrives at, before it does

-- Adds g to a leaf's .grad, which always has the leaf's own memory order. g arrives pinned.
local function deposit(leaf, g)
  if M.on_deposit then M.on_deposit(leaf) end
  if leaf.grad then
    tensor.alive(leaf.grad, 'backward')
    lib.check(leaf.lib.ty_add(leaf.grad.c, leaf.grad.c, g.c), leaf.lib)
    leaf.grad.storage.version, leaf.grad.storage.writer = leaf.grad.storage.version + 1, 'backward'
    unpin(g)
    return
  end
  if is_alone(g) and tensor.same_order(g, leaf) then
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
    local waiting, context = parent[GRADIENT], parent[CONTEXT]
    if waiting and getmetatable(context) == Context and context.adds and not context.more then
      context.more = g
    elseif waiting then
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

-- Frees the storages of a list that were left to the tape (tycho.scope) and that no other node keeps.
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

-- A gradient that a rule gave for an input.
local function accept(context, input, g)
  if tensor.is_tensor(g) and input and tensor.same_shape(g, input) then return g end
  local name = type(context) == 'table' and context.op or 'an op'
  lib.raise(('%s backward: expected a gradient of shape %s, got %s'):format(name, input and tensor.shape_text(input) or 'none',
    tensor.is_tensor(g) and tensor.shape_text(g) or type(g)))
end

-- A forgotten return would stop all learning below the op.
local function nothing(context)
  lib.raise(('%s backward: it returned nothing; expected a gradient for each input, false for one that has none'):format(context.op))
end

local function list_of(context, grads)
  if type(grads) == 'table' and not tensor.is_tensor(grads) then return grads end
  lib.raise(('%s backward: expected a list of gradients, got %s'):format(context.op, tensor.is_tensor(grads) and 'a tensor' or type(grads)))
end

local function run_node(heap, node)
  local rule, context, dy = node[RULE], node[CONTEXT], node[GRADIENT]
  if not rule then second_time() end
  local level = storages.enter()
  local is_list = context and context.is_list
  if #node <= FIRST + 1 and not is_list then
    local a, b = node[FIRST], node[FIRST + 1]
    local da, db = rule(context, dy, a, b)
    if da == nil and db == nil and getmetatable(context) == Context then nothing(context) end
    if finite.is_on then
      finite.check_gradient(node, da)
      finite.check_gradient(node, db)
    end
    if da then pin(accept(context, a, da)) end
    if db then pin(accept(context, b, db)) end
    storages.leave(level, made_by_backward)
    unpin_incoming(node) -- first: what a rule hands on as it came has one holder then, and becomes a leaf's gradient without a copy
    if da then pass_on(heap, a, da) end
    if db then pass_on(heap, b, db) end
  else
    local grads = { rule(context, dy) }
    if next(grads) == nil then nothing(context) end
    if is_list then grads = list_of(context, grads[1]) end
    for i = FIRST, #node do
      if finite.is_on then finite.check_gradient(node, grads[i - FIRST + 1]) end
      if grads[i - FIRST + 1] then pin(accept(context, node[i], grads[i - FIRST + 1])) end
    end
    storages.leave(level, made_by_backward)
    unpin_incoming(node)
    for i = FIRST, #node do
      if grads[i - FIRST + 1] then pass_on(heap, node[i], grads[i - FIRST + 1]) end
    end
  end
  if getmetatable(context) == Context then context:release() end
  if context and context.held then let_go(context.held) end
  node[RULE], node[CONTEXT] = false, false
  for i = FIRST, #node do node[i] = false end
end

local function walk(heap)
  while heap[1] do
    heap.running = pop(heap)
    run_node(heap, heap.running)
  end
end

-- After an error: nothing waits at a node any more that another backward may come to.
local function abandon(heap)
  heap[#heap + 1] = heap.running
  for _, node in ipairs(heap) do
    if node[GRADIENT] then unpin_incoming(node) end
  end
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
  elseif not tensor.is_tensor(gradient) then
    lib.raise(('backward: the gradient must be a tensor of shape %s, got %s'):format(tensor.shape_text(self), type(gradient)))
  elseif not tensor.same_shape(tensor.alive(gradient, 'backward'), self) then
    lib.raise(('backward: the gradient must have shape %s, got %s'):format(tensor.shape_text(self), tensor.shape_text(gradient)))
  end
  gradient = gradient:to(self.dtype)
  local level, heap = storages.scope_level(), { root }
  root[GRADIENT] = pin(gradient)
  local ok, message = pcall(autograd.no_grad, walk, heap)
  if not ok then
    abandon(heap)
    storages.unwind(level + 1)
    error(message, 0)
  end
end

return M
