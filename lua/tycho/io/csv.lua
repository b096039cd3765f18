-- Tables as comma-separated values (RFC 4180), for spreadsheets and plotting programs. Writes only.
local M = {}

local function cell(value)
  if value == nil then return '' end
  if type(value) == 'number' then return value == value and ('%.14g'):format(value) or 'nan' end
  local text = tostring(value)
  return text:find('[",\r\n]') and '"' .. text:gsub('"', '""') .. '"' or text
end

-- The line of a row. columns: list of names; row: name -> value, an absent one gives an empty cell.
function M.line(columns, row)
  local cells = {}
  for i, name in ipairs(columns) do cells[i] = cell(row[name]) end
  return table.concat(cells, ',') .. '\n'
end

-- The whole table of a list of rows.
function M.encode(columns, rows)
  local header = {}
  for _, name in ipairs(columns) do header[name] = name end
  local lines = { M.line(columns, header) }
  for _, row in ipairs(rows) do lines[#lines + 1] = M.line(columns, row) end
  return table.concat(lines)
end

return M
