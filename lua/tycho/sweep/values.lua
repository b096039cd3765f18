-- The values that a setting takes in a sweep, from the text behind its '=':
--   a,b,c  choice(a,b,c)      each of them; brackets and quotes keep their commas: [1,0,0],[0,1,0]
--   1:5  0:1:0.25             numbers from the first to the last, which is among them; the third number is the step
--   range(0,5,2)              Hydra's: the last is not among them
--   interval(0,1)  log(1e-5,1e-2)    drawn evenly, or evenly in the logarithm; only where points are drawn (sample=N)
-- Knows nothing of which keys exist.
local M = {}

local MOST = 10000 -- values of one setting

local function trim(text) return (text:match('^%s*(.-)%s*$')) end

local function fail(key, text, message) error(('%s=%s: %s'):format(key, text, message), 0) end

-- Pieces of text between commas outside brackets and quotes.
function M.split(text)
  local pieces, start, depth, quote, i = {}, 1, 0, nil, 1
  while i <= #text do
    local c = text:sub(i, i)
    if c == '\\' then
      i = i + 1
    elseif quote then
      if c == quote then quote = nil end
    elseif c == '"' or c == "'" then
      quote = c
    elseif c:match('[%[{(]') then
      depth = depth + 1
    elseif c:match('[%]})]') then
      depth = depth - 1
    elseif c == ',' and depth == 0 then
      pieces[#pieces + 1] = trim(text:sub(start, i - 1))
      start = i + 1
    end
    i = i + 1
  end
  pieces[#pieces + 1] = trim(text:sub(start))
  return pieces
end

local function numbers(key, text, pieces)
  local out = {}
  for i, piece in ipairs(pieces) do
    out[i] = tonumber(piece)
    if not out[i] or out[i] - out[i] ~= 0 then fail(key, text, ("'%s' is not a number"):format(piece)) end
  end
  return out
end

-- Sums of steps are rounded to what the user wrote, far below a step: 0.1:0.3:0.1 holds 0.3, and 0.7:0:-0.1 holds 0.
local function count_up(key, text, first, last, step, is_last_in)
  if step == 0 or (last - first) * step < 0 then
    fail(key, text, ('a bad range: steps of %.14g do not lead from %.14g to %.14g'):format(step, first, last))
  end
  local n = (last - first) / step
  n = is_last_in and math.floor(n + 1e-9) or math.ceil(n - 1e-9) - 1
  if n < 0 then fail(key, text, 'a bad range: it holds no number') end
  if n >= MOST then fail(key, text, ('a bad range: it holds more than %d numbers'):format(MOST)) end
  local list, decimals = {}, math.min(math.max(9 - math.floor(math.log10(math.abs(step))), 0), 90)
  local fixed = '%.' .. decimals .. 'f'
  for i = 0, n do list[i + 1] = ('%.15g'):format(tonumber(fixed:format(first + i * step)) + 0) end -- no negative zero
  return list
end

-- What stands in FUNCTION(...), by its name.
local functions = {}

function functions.choice(_, _, pieces) return pieces end

function functions.range(key, text, pieces)
  local n = numbers(key, text, pieces)
  if #n < 1 or #n > 3 then fail(key, text, 'a range is range(last), range(first,last) or range(first,last,step)') end
  local first, last = n[2] and n[1] or 0, n[2] or n[1]
  return count_up(key, text, first, last, n[3] or 1, false)
end

local function bounds(key, text, pieces, name, least)
  local n = numbers(key, text, pieces)
  if #n ~= 2 or n[1] >= n[2] or n[1] <= least then
    fail(key, text, ('a bad range: expected %s(low,high) with low < high%s'):format(name, least == 0 and ', both above 0' or ''))
  end
  return n[1], n[2]
end

function functions.interval(key, text, pieces)
  local low, high = bounds(key, text, pieces, 'interval', -math.huge)
  return { draw = function(u) return ('%.6g'):format(low + u * (high - low)) end }
end

functions['log'] = function(key, text, pieces)
  local low, high = bounds(key, text, pieces, 'log', 0)
  return { draw = function(u) return ('%.6g'):format(low * (high / low) ^ u) end }
end

local function from_colons(key, text)
  local parts = {}
  for part in (text .. ':'):gmatch('([^:]*):') do parts[#parts + 1] = trim(part) end
  if #parts < 2 or not tonumber(parts[1]) then return nil end
  if #parts > 3 then fail(key, text, 'a bad range: expected first:last or first:last:step') end
  for i = 2, #parts do
    if not tonumber(parts[i]) then fail(key, text, ("a bad range: '%s' is not a number; quote the value if it is text"):format(parts[i])) end
  end
  local n = numbers(key, text, parts)
  return count_up(key, text, n[1], n[2], n[3] or (n[1] <= n[2] and 1 or -1), true)
end

local function check(key, text, list)
  if #list > MOST then fail(key, text, ('more than %d values'):format(MOST)) end
  local seen = {}
  for _, value in ipairs(list) do
    if value == '' then fail(key, text, "an empty value between commas; write '' for empty text") end
    if seen[value] then fail(key, text, ('%s is there twice'):format(value)) end
    seen[value] = true
  end
  return list
end

-- A list of texts, or {draw = function(u in [0,1)) -> text}; nil when the text is one value.
function M.read(key, text)
  text = trim(text)
  local name, inside = text:match('^(%a+)%((.*)%)$')
  if name and functions[name] then
    local found = functions[name](key, text, M.split(inside))
    return found.draw and found or check(key, text, found)
  end
  local list = M.split(text)
  if #list == 1 then list = from_colons(key, text) end
  return list and check(key, text, list)
end

return M
