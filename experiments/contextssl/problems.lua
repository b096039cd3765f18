-- What is wrong with the objects of a data set, counted by kind, so that all of it is told at once and before any training.
local Problems = {}
Problems.__index = Problems

local KINDS = { 'absent objects', 'missing images', 'damaged images', 'missing latents', 'damaged latents', 'labels out of range' }
local EXAMPLES = 3

-- An object (any key) is bad for reason `kind`; example says where.
function Problems:add(kind, object, example)
  local row = self.rows[kind] or { count = 0, objects = 0, seen = {}, examples = {} }
  self.rows[kind] = row
  row.count = row.count + 1
  if not row.seen[object] then row.seen[object], row.objects = true, row.objects + 1 end
  if #row.examples < EXAMPLES then row.examples[#row.examples + 1] = example end
  if not self.bad[object] then self.bad[object], self.count = true, self.count + 1 end
end

-- Sentence `what`, then a line for each kind.
function Problems:text(what)
  local lines = { what .. ':' }
  for _, kind in ipairs(KINDS) do
    local row = self.rows[kind]
    if row then
      local objects = row.objects < row.count and (' of %d object%s'):format(row.objects, row.objects == 1 and '' or 's') or ''
      lines[#lines + 1] = ('  %s: %d%s\n    %s%s'):format(kind, row.count, objects, table.concat(row.examples, '\n    '),
        row.count > #row.examples and '\n    ...' or '')
    end
  end
  return table.concat(lines, '\n')
end

-- bad: set of objects, count: their number.
return function() return setmetatable({ rows = {}, bad = {}, count = 0 }, Problems) end
