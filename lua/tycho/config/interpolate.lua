-- Fills in ${key}, ${oc.env:VARIABLE} and ${oc.env:VARIABLE,default} in the values of a tree, as OmegaConf does. \${ is left as ${.
local change = require 'tycho.config.change'
local keys = require 'tycho.config.keys'
local node = require 'tycho.config.node'

local M = {}

local function from_environment(key, reference)
  local name, default = reference:match('^oc%.env:%s*([%w_]+)%s*$'), nil
  if not name then name, default = reference:match('^oc%.env:%s*([%w_]+)%s*,%s*(.-)%s*$') end
  local value = name and os.getenv(name) or default
  if not value then
    error(('%s: the environment variable of ${%s} is not set; write ${oc.env:NAME,default} to give it a default'):format(key, reference), 0)
  end
  return node.scalar(value)
end

-- tree: changed in place. Kinds are checked against the defaults once the values are known.
function M.fill(tree)
  local visiting, filled = {}, {}
  local fill

  local function value_of(key, reference)
    if reference:match('^oc%.env:') then return from_environment(key, reference) end
    if reference:find(':', 1, true) then
      error(('%s: ${%s} is not understood; there are ${key}, ${oc.env:VARIABLE} and ${oc.env:VARIABLE,default}'):format(key, reference), 0)
    end
    local target = keys.find(tree, reference)
    if not target then keys.fail_unknown(tree, reference, ('in the value of %s'):format(key), '--help lists the keys') end
    return fill(reference, target)
  end

  -- Innermost first; \${, and ${ in a value that is put in, wait as a byte that no text holds.
  local function substitute(key, text)
    text = text:gsub('\\%${', '\1')
    local count
    repeat
      local whole = text:match('^%${([^${}]*)}$')
      if whole then return value_of(key, whole) end
      text, count = text:gsub('%${([^${}]*)}', function(reference)
        local n = value_of(key, reference)
        return ((n.kind == 'string' and n.value or node.inline(n)):gsub('%${', '\1'))
      end)
    until count == 0
    if text:find('${', 1, true) then error(('%s: a ${ in %s is not closed'):format(key, text), 0) end
    return node.string((text:gsub('\1', '${')))
  end

  function fill(key, n)
    if n.kind == 'list' then
      for i, item in ipairs(n.items) do n.items[i] = fill(key, item) end
    elseif n.kind == 'map' then
      for _, name in ipairs(n.keys) do n.items[name] = fill(key .. '.' .. name, n.items[name]) end
    elseif n.kind == 'string' and not filled[n] and n.value:find('${', 1, true) then
      if visiting[key] then error(('%s: its ${...} leads back to itself'):format(key), 0) end
      visiting[key] = true
      local found = substitute(key, n.value)
      visiting[key] = nil
      local copy = { kind = found.kind, value = found.value, raw = found.raw, items = found.items, keys = found.keys, where = n.where }
      local result = n.default and change.convert(key, copy, n.default) or copy
      result.where, result.meaning, result.default = n.where, n.meaning, n.default
      filled[result] = true
      if keys.find(tree, key) == n then keys.set(tree, key, result) end
      return result
    end
    return n
  end
  for _, name in ipairs(tree.keys) do fill(name, tree.items[name]) end
end

return M
