-- The tape: a node for every op that a gradient flows through, walked backwards in the order of creation.
-- Rules live beside their forward in ops/; this file only moves gradients and frees what nobody needs any more.
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

-- What a rule keeps between forward and backward. Fields a rule sets itself are its own (sizes, flags).
local Context = {}
Context.__index = Context
M.Context = Context

-- Remembers tensors for backward, with their versions.
function Context:save(a, b, c, d)
  self.saved_list = { a, b, c, d }
  self.versions = { a and a.storage.version, b and b.storage.version, c and c.storage.version, d and d.storage.version }
end

-- What save was given, unless one of them was changed in place since.
function Context:saved()
  local list = self.saved_list
  if not list then
    lib.raise(('backward ran through %s a second time: its saved tensors were released; compute the loss again'):format(self.op))
  end
  for i = 1, 4 do
    local t = list[i]
    if t then
      tensor.alive(t, self.op .. ' backward')
      if t.storage.version ~= self.versions[i] then
        lib.raise(('%s saved a tensor of shape %s for backward that %s then changed in place; clone it first'):format(self.op,
          tensor.shape_text(t), tostring(t.storage.writer)))
      end
    end
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
  self.saved_list = nil
  local owned = self.owned
  if owned then
    for i = 1, #owned do owned[i].storage:free() end
    self.owned = nil
  end
end

local function flows(t) return t and (t.requires_grad or t.node) end
M.flows = flows

-- Attaches a node to out: rule(ctx, dy) returns one gradient (or nil) per input.
function M.record(out, ctx, rule, inputs)
  count = count + 1
  out.node = { index = count, ctx = ctx, rule = rule, inputs = inputs }
end

-- ---- walking back ----

local function collect_nodes(root)
  local nodes, seen, stack = {}, { [root] = true }, { root }
  local top = 1
  while top > 0 do
    local node = stack[top]
    top = top - 1
    nodes[#nodes + 1] = node
    local inputs = node.inputs
    for i = 1, #inputs do
      local input = inputs[i]
      local parent = input and input.node
      if parent and not seen[parent] then
        seen[parent] = true
        top = top + 1
        stack[top] = parent
      end
    end
  end
  table.sort(nodes, function(a, b) return a.index > b.index end)
  return nodes
end

-- Gradients may share storage (add hands the same one to both inputs), so a storage counts the gradients that wait on it
-- and is freed with the last, if backward made it.
local function unpin(g)
  local s = g.storage
  s.pins = s.pins - 1
  if s.pins == 0 then
    s.pins = nil
    if s.made_by_backward and not s.lasting then s:free() end
  end
end
local function pin(g)
  local s = g.storage
  s.pins = (s.pins or 0) + 1
  return g
end

local function add_gradients(a, b)
  if a.storage.made_by_backward and a.storage.pins == 1 and a:numel() * a.type.size == a.storage.bytes then
    lib.check(a.lib.ty_add(a.c, a.c, b.c), a.lib)
    unpin(b)
    return a
  end
  local sum = tensor.empty_like(a)
  sum.storage.made_by_backward = true
  lib.check(sum.lib.ty_add(sum.c, a.c, b.c), sum.lib)
  unpin(a)
  unpin(b)
  return pin(sum)
end

local function same_layout(a, b)
  for i = 0, a.c.ndim - 1 do
    if a.c.shape[i] > 1 and a.c.stride[i] ~= b.c.stride[i] then return false end
  end
  return true
end

-- Adds g to a leaf's .grad, which always has the leaf's own memory order. g arrives pinned.
local function deposit(leaf, g)
  if leaf.grad then
    lib.check(leaf.lib.ty_add(leaf.grad.c, leaf.grad.c, g.c), leaf.lib)
    leaf.grad.storage.version = leaf.grad.storage.version + 1
    unpin(g)
    return
  end
  local s = g.storage
  if s.made_by_backward and s.pins == 1 and g:numel() * g.type.size == s.bytes and same_layout(g, leaf) then
    s.pins, s.made_by_backward = nil, nil
    leaf.grad = g
  else
    leaf.grad = tensor.copy_into(tensor.empty_like(leaf), g)
    unpin(g)
  end
  leaf.grad.storage.lasting = true
end

local function run_rule(node, dy)
  local ctx = node.ctx
  if not ctx then lib.raise('backward ran through the same graph a second time: its saved tensors were released; compute the loss again') end
  local outer = lib.enter()
  local grads = { node.rule(ctx, dy) }
  for i = 1, #node.inputs do
    local g = grads[i]
    if g then
      g.storage.keep = true
      pin(g)
    end
  end
  local made = lib.innermost_scope()
  for i = 1, #made do
    if made[i].keep then made[i].made_by_backward = true end
  end
  lib.leave(outer)
  for i = 1, #node.inputs do
    if grads[i] then grads[i].storage.keep = nil end
  end
  ctx:release()
  node.ctx = nil
  return grads
end

-- Accumulates d self / d leaf into .grad of every leaf that requires it, and releases the graph. gradient: dL/d self, needed
-- unless self is a scalar.
function Tensor:backward(gradient)
  local root = self.node
  if not root then
    if self.requires_grad then lib.raise('backward: this tensor is a leaf; call backward on a loss computed from it') end
    lib.raise('backward: no gradient was recorded; set requires_grad on a parameter, and do not compute inside tycho.no_grad')
  end
  if not gradient then
    if self:numel() ~= 1 then
      lib.raise(('backward: expected a scalar loss, got shape %s; pass the gradient of this tensor'):format(tensor.shape_text(self)))
    end
    gradient = tensor.full(self.shape, 1, self.dtype)
  elseif not tensor.same_shape(gradient, self) then
    lib.raise(('backward: the gradient must have shape %s, got %s'):format(tensor.shape_text(self), tensor.shape_text(gradient)))
  end
  local outer = lib.innermost_scope()
  local was_enabled = enabled
  enabled = false
  local ok, message = xpcall(function()
    local nodes = collect_nodes(root)
    root.grad = pin(gradient)
    for i = 1, #nodes do
      local node = nodes[i]
      local dy = node.grad
      if dy then
        node.grad = nil
        local grads = run_rule(node, dy)
        for j = 1, #node.inputs do
          local input, g = node.inputs[j], grads[j]
          if g then
            local parent = input and input.node
            if parent then
              parent.grad = parent.grad and add_gradients(parent.grad, g) or g
            elseif input and input.requires_grad then
              deposit(input, g)
            else
              unpin(g)
            end
          end
        end
        unpin(dy)
        node.inputs = {}
      end
    end
  end, lib.remember)
  enabled = was_enabled
  if not ok then
    lib.unwind(outer)
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
  if not self.type.real then lib.raise('requires_grad_: expected f32 or f64, got ' .. self.dtype) end
  self.requires_grad = on ~= false or nil
  return self
end

-- Frees every tensor made inside fn except those that it returns (also inside one level of tables), leaf gradients, and
-- tensors marked with tycho.keep. Returns what fn returns.
function M.scope(fn, ...)
  local outer = lib.enter()
  local function mark(value, depth)
    if tensor.is_tensor(value) then
      value.storage.keep = true
    elseif depth > 0 and type(value) == 'table' then
      for _, v in pairs(value) do mark(v, depth - 1) end
    end
  end
  local function finish(ok, ...)
    if not ok then
      lib.unwind(outer)
      error((...), 0)
    end
    for i = 1, select('#', ...) do mark((select(i, ...)), 1) end
    lib.leave(outer)
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
