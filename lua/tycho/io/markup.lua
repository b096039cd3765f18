-- What text and bytes must be turned into to stand in HTML and SVG.
local M = {}

local entities = { ['&'] = '&amp;', ['<'] = '&lt;', ['>'] = '&gt;', ['"'] = '&quot;' }

-- Control characters but for line breaks and tabs may not stand there at all.
function M.escape(text) return (tostring(text):gsub('[%z\1-\8\11\12\14-\31]', '?'):gsub('[&<>"]', entities)) end

local digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'

-- Bytes as RFC 4648 has them in data: addresses.
function M.base64(bytes)
  local out = {}
  for i = 1, #bytes, 3 do
    local a, b, c = bytes:byte(i, i + 2)
    local n = a * 65536 + (b or 0) * 256 + (c or 0)
    for k = 3, 0, -1 do
      local digit = math.floor(n / 64 ^ k) % 64 + 1
      out[#out + 1] = (k == 1 and not b or k == 0 and not c) and '=' or digits:sub(digit, digit)
    end
  end
  return table.concat(out)
end

return M
