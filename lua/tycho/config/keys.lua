-- Dotted keys in a tree of nodes (tycho.config.node): listing, finding, setting, and the sentence about one that is not there.
local nearest = require 'tycho.nearest'
local node = require 'tycho.config.node'

local M = {}

function M.split(key)
  local parts = {}
  for part in key:gmatch('[^.]+') do parts[#parts + 1] = part end
  return parts
end

-- Dotted names of all keys below map, maps included, in order.
function M.all(map, prefix, out)
  out = out or {}
  for _, key in ipairs(map.keys) do
    local name = (prefix or '') .. key
    out[#out + 1] = name
    if map.items[key].kind == 'map' then M.all(map.items[key], name .. '.', out) end
  end
  return out
end

-- The node at key, or nil.
function M.find(tree, key)
  local current = tree
  for _, part in ipairs(M.split(key)) do
    current = current and current.kind == 'map' and current.items[part]
  end
  return current or nil
end

-- Sets the node at key; nil removes it. Groups on the way are made.
function M.set(tree, key, value)
  local parts = M.split(key)
  local current = tree
  for i = 1, #parts - 1 do
    local below = current.items[parts[i]]
    if not below or below.kind == 'null' then
      below = node.map()
      node.set(current, parts[i], below)
    end
    if below.kind ~= 'map' then
      error(("cannot set '%s': '%s' is a value, not a group of keys"):format(key, table.concat(parts, '.', 1, i)), 0)
    end
    current = below
  end
  node.set(current, parts[#parts], value)
end

-- ' (file:line)' of a node, for the end of a clause.
function M.at(n) return n and n.where and (' (%s)'):format(n.where) or '' end

-- Raises that key is unknown. where: of the key, or nil; advice: the last part of the sentence.
function M.fail_unknown(tree, key, where, advice)
  local near = nearest(key, M.all(tree))
  error(("unknown key '%s'%s; %s%s"):format(key, where and (' (%s)'):format(where) or '',
    near and ("did you mean '%s'%s? "):format(near, M.at(M.find(tree, near))) or '', near and advice:gsub('^%l', string.upper) or advice), 0)
end

return M
