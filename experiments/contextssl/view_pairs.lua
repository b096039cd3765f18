-- Pairs of views of one object, by the row numbers of the images (object * views + view), and the actions between them.
local tycho = require 'tycho'
local latents = require 'experiments.contextssl.latents'

local M = {}

-- The partner of every image, int64 (objects * views): the next view on a random cycle through the views of its object. So every view is once the
-- first and once the second of a pair of two different views.
function M.cycle(objects, views, generator)
  local partner = tycho.empty({ objects * views }, 'i64')
  local p = partner:ptr()
  for object = 0, objects - 1 do
    local order = generator:permutation(views)
    for i, view in ipairs(order) do p[object * views + view] = object * views + order[i % views + 1] end
  end
  return partner
end

-- Rows of both views of dataset:draw_pairs' pairs: two int64 tensors.
function M.rows(list, views)
  local first, second = tycho.empty({ #list }, 'i64'), tycho.empty({ #list }, 'i64')
  local p, q = first:ptr(), second:ptr()
  for i, pair in ipairs(list) do p[i - 1], q[i - 1] = pair[1] * views + pair[2], pair[1] * views + pair[3] end
  return first, second
end

-- Actions (n,6) from rows `first` to rows `second` (int64) of states (N,6) f32.
function M.actions(states, first, second)
  local n = first:numel()
  local actions = tycho.empty { n, 6 }
  local out, s, p, q = actions:ptr(), states:ptr(), first:ptr(), second:ptr()
  local a, b = {}, {}
  for i = 0, n - 1 do
    for k = 1, 6 do a[k], b[k] = s[p[i] * 6 + k - 1], s[q[i] * 6 + k - 1] end
    for k, value in ipairs(latents.action(a, b)) do out[i * 6 + k - 1] = value end
  end
  return actions
end

return M
