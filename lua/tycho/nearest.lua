-- The name that a mistyped one most likely meant, for error messages.

-- Number of insertions, deletions, changes and swaps of neighbours that turn a into b (Damerau-Levenshtein, each letter moved once).
local function distance(a, b)
  local before, last = nil, {}
  for j = 0, #b do last[j] = j end
  for i = 1, #a do
    local row = { [0] = i }
    for j = 1, #b do
      local change = a:byte(i) == b:byte(j) and 0 or 1
      row[j] = math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + change)
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        row[j] = math.min(row[j], before[j - 2] + 1)
      end
    end
    before, last = last, row
  end
  return last[#b]
end

-- The entry of names (a list) closest to name, or nil when none is close: a third of the letters may differ, or one contains the
-- other. Second result: true when a slip of the finger explains the difference.
return function(name, names)
  local best, best_distance, is_slip
  local wanted = name:lower()
  for _, candidate in ipairs(names) do
    local text = candidate:lower()
    local d = distance(wanted, text)
    local allowed = math.max(1, math.floor(math.max(#wanted, #text) / 3))
    local contained = #wanted >= 3 and #text >= 3 and (text:find(wanted, 1, true) or wanted:find(text, 1, true))
    if (d <= allowed or contained) and (not best or d < best_distance) then
      best, best_distance, is_slip = candidate, d, d <= math.min(2, allowed)
    end
  end
  return best, is_slip
end
