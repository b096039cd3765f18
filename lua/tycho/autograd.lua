-- The tape: a node for every op that a gradient flows through. Rules live beside their forward in ops/; backward.lua walks, scope.lua frees.
local lib = require 'tycho.lib'
local tensor = require 'tycho.tensor'
local Tensor = tensor.Tensor

local M = {}
local enabled = true
local count = 0

function M.enabled() return enabled end

local function recording(on, fn, ...)
  lib.check_callable(on and 'with_grad' or 'no_grad', fn)
  local was = enabled
  enabled = on
  local function finish(ok, ...)
    enabled = was
    if not ok then error((...), 0) end
    return ...
  end
  return finish(xpcall(fn, lib.remember, ...))
end

-- Runs fn(...) without recording; returns what it returns. fn may not yield to a coroutine outside, which would record nothing either.
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

-- Remembers up to four tensors for backward, with their versions.
function Context:save(a, b, c, d, more)
  if more ~= nil then lib.raise(self.op .. ': ctx:save takes four tensors at most') end
  self.saved_list = { a, b, c, d }
  self.versions = { a and a.storage.version, b and b.storage.version, c and c.storage.version, d and d.storage.version }
end

-- What save was given, unless one of them was changed in place since.
function Context:saved()
  local list = self.saved_list or lib.raise(self.op .. ' backward: nothing was saved; its forward is to call ctx:save(tensors)')
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
M.FIELDS = { 1, 2, 3, 4, 5 }
local FIRST = M.FIELDS[5]

-- Attaches a node to out: rule(context, dy, a, b) returns one gradient (or nil) per input.
function M.record(out, rule, context, a, b)
  count = count + 1
  rawset(out, 'node', { rule, context, count, false, a, b or false })
end

-- The same for a list of inputs, false where there is none.
function M.record_list(out, rule, context, inputs)
  M.record(out, rule, context, inputs[1], inputs[2])
  for i = 3, #inputs do out.node[FIRST + i - 1] = inputs[i] end
end

-- The number of the last node.
function M.count() return count end

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

return M
