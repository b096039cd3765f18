-- Tables as comma-separated values (RFC 4180), for spreadsheets and plotting programs. Writes only.
local M = {}

local function cell(value)
  if value == nil then return '' end
  if type(value) == 'number' then return value == value and ('%.14g'):format(value) or 'nan' end
  local text = tostring(value)
  return text:find('[",\r\n]') and '"' .. text:gsub('"', '""') .. '"' or text
end

-- columns: list of names; rows: list of tables name -> value, an absent one gives an empty cell.
function M.encode(columns, rows)
  local lines, header = {}, {}
  for i, name in ipairs(columns) do header[i] = cell(name) end
  lines[1] = table.concat(header, ',')
  for k, row in ipairs(rows) do
    local cells = {}
    for i, name in ipairs(columns) do cells[i] = cell(row[name]) end
    lines[k + 1] = table.concat(cells, ',')
  end
  return table.concat(lines, '\n') .. '\n'
end

return M
