-- Tables of results as text, CSV, Markdown and LaTeX. A cell is a text, a number, nothing, or {mean =, std = (nil for one value), n =}.
--
--   local t = tycho.table { columns = { 'mask_prob', 'loss' }, rows = { { mask_prob = 0.5, loss = { mean = 3.1, std = 0.2, n = 3 } } } }
--   print(t:text()); t:write('folder/table')     -- table.txt, table.csv, table.md, table.tex
local csv = require 'tycho.io.csv'
local file = require 'tycho.io.file'

local Table = {}
Table.__index = Table

-- Mean, standard deviation (n - 1) and number of a list of numbers; nil for none.
local function statistics(list)
  local n, mean, square = #list, 0, 0
  if n == 0 then return nil end
  for _, x in ipairs(list) do mean = mean + x / n end
  for _, x in ipairs(list) do square = square + (x - mean) ^ 2 end
  return { mean = mean, std = n > 1 and math.sqrt(square / (n - 1)) or nil, n = n }
end

local function number(x)
  if x ~= x then return 'nan' end
  if x == math.floor(x) and math.abs(x) < 1e15 then return ('%d'):format(x) end
  local size = math.abs(x)
  return (size >= 0.01 and size < 1000 and '%.3f' or '%.3g'):format(x)
end

-- plus_minus: what stands between a mean and its deviation.
local function cell_text(value, plus_minus)
  if value == nil then return '' end
  if type(value) == 'table' then
    if not value.std then return number(value.mean) end
    local format = math.abs(value.mean) < 1000 and math.max(math.abs(value.mean), value.std) >= 0.01 and '%.3f' or '%.3g'
    return format:format(value.mean) .. plus_minus .. format:format(value.std)
  end
  return type(value) == 'number' and number(value) or tostring(value)
end

local function is_number(value) return type(value) == 'number' or type(value) == 'table' end

local length = require('tycho.repl.terminal').width

local function pad(text, width, left)
  local blanks = (' '):rep(width - length(text))
  return left and text .. blanks or blanks .. text
end

-- Cells as texts, by row and column; numbers say whether a column is to stand at the right.
local function cells_of(self, plus_minus, escape)
  local cells, right = {}, {}
  for i in ipairs(self.columns) do right[i] = true end
  for k, row in ipairs(self.rows) do
    cells[k] = {}
    for i, name in ipairs(self.columns) do
      cells[k][i] = escape(cell_text(row[name], plus_minus), row[name])
      if row[name] ~= nil and not is_number(row[name]) and not tonumber(row[name]) then right[i] = false end
    end
  end
  return cells, right
end

function Table:text()
  local cells, right = cells_of(self, ' ± ', function(text) return text end)
  table.insert(cells, 1, self.columns)
  local widths, lines = {}, {}
  for i in ipairs(self.columns) do
    widths[i] = 0
    for _, row in ipairs(cells) do widths[i] = math.max(widths[i], length(row[i])) end
  end
  for k, row in ipairs(cells) do
    local out = {}
    for i, text in ipairs(row) do out[i] = pad(text, widths[i], not right[i]) end
    lines[k] = (table.concat(out, '  '):gsub('%s+$', ''))
  end
  return table.concat(lines, '\n') .. '\n'
end

-- Numbers with all their digits; a mean's deviation and number are columns of their own, NAME_std and NAME_n.
function Table:csv()
  local columns, rows, spread = {}, {}, {}
  for _, row in ipairs(self.rows) do
    for name, value in pairs(row) do spread[name] = spread[name] or type(value) == 'table' end
  end
  for _, name in ipairs(self.columns) do
    columns[#columns + 1] = name
    if spread[name] then columns[#columns + 1], columns[#columns + 2] = name .. '_std', name .. '_n' end
  end
  for k, row in ipairs(self.rows) do
    rows[k] = {}
    for name, value in pairs(row) do
      if type(value) == 'table' then
        rows[k][name], rows[k][name .. '_std'], rows[k][name .. '_n'] = value.mean, value.std, value.n
      else
        rows[k][name] = value
      end
    end
  end
  return csv.encode(columns, rows)
end

function Table:markdown()
  local function escape(text) return (text:gsub('|', '\\|')) end
  local cells, right = cells_of(self, ' ± ', escape)
  local heads, rules, lines = {}, {}, {}
  for i, name in ipairs(self.columns) do heads[i], rules[i] = escape(name), right[i] and '---:' or '---' end
  for k, row in ipairs { heads, rules, unpack(cells) } do lines[k] = '| ' .. table.concat(row, ' | ') .. ' |' end
  return table.concat(lines, '\n') .. '\n'
end

local special = { ['\\'] = '\\textbackslash{}', ['~'] = '\\textasciitilde{}', ['^'] = '\\textasciicircum{}' }

-- A tabular; needs no packages.
function Table:latex()
  local function escape(text, value)
    if is_number(value) then return '$' .. text .. '$' end
    return (text:gsub('[\\~^&%%$#_{}]', function(c) return special[c] or '\\' .. c end))
  end
  local cells, right = cells_of(self, ' \\pm ', function(text, value) return text == '' and text or escape(text, value) end)
  local places, heads = {}, {}
  for i, name in ipairs(self.columns) do places[i], heads[i] = right[i] and 'r' or 'l', escape(name) end
  local lines = { ('\\begin{tabular}{%s}'):format(table.concat(places)), '\\hline', table.concat(heads, ' & ') .. ' \\\\', '\\hline' }
  for _, row in ipairs(cells) do lines[#lines + 1] = table.concat(row, ' & ') .. ' \\\\' end
  lines[#lines + 1] = '\\hline'
  lines[#lines + 1] = '\\end{tabular}'
  return table.concat(lines, '\n') .. '\n'
end

-- Writes stem.txt, .csv, .md and .tex.
function Table:write(stem)
  for ending, method in pairs { txt = 'text', csv = 'csv', md = 'markdown', tex = 'latex' } do
    file.write(('%s.%s'):format(stem, ending), self[method](self))
  end
end

-- A table with one row for each different set of values under keys: {mean, std, n} of the numbers under metrics, over the rows that share it.
-- Rows stand in the order in which their sets first appear; n: name of a column with the number of rows [opt].
local function grouped(rows, keys, metrics, n)
  local groups, order = {}, {}
  for _, row in ipairs(rows) do
    local words = {}
    for i, key in ipairs(keys) do words[i] = tostring(row[key]) end
    local id = table.concat(words, '\0')
    if not groups[id] then
      groups[id] = { row = row, lists = {}, count = 0 }
      order[#order + 1] = groups[id]
    end
    local group = groups[id]
    group.count = group.count + 1
    for _, metric in ipairs(metrics) do
      group.lists[metric] = group.lists[metric] or {}
      if type(row[metric]) == 'number' then table.insert(group.lists[metric], row[metric]) end
    end
  end
  local columns, out = {}, {}
  for _, key in ipairs(keys) do columns[#columns + 1] = key end
  if n then columns[#columns + 1] = n end
  for _, metric in ipairs(metrics) do columns[#columns + 1] = metric end
  for i, group in ipairs(order) do
    out[i] = {}
    for _, key in ipairs(keys) do out[i][key] = group.row[key] end
    if n then out[i][n] = group.count end
    for metric, list in pairs(group.lists) do out[i][metric] = statistics(list) end
  end
  return setmetatable({ columns = columns, rows = out }, Table)
end

return setmetatable({ statistics = statistics, grouped = grouped }, {
  __call = function(_, options) return setmetatable({ columns = options.columns, rows = options.rows }, Table) end,
})
