-- A stroke font for charts: printable ASCII and a few signs. A glyph is polylines of points "xy" on a grid of 5 columns and 9 rows: capitals
-- stand on row 6 and reach row 0, small letters reach row 2, descenders row 8. Gentle corners are drawn round.
local glyphs = {
  A = '062046 1434', B = '06003041423303 3344453606', C = '4130100105163645', D = '06003041453606', E = '40000646 0333', F = '400006 0333',
  G = '41301001051636454323', H = '0006 4046 0343', I = '1030 2026 1636', J = '4045361605', K = '0006 400346', L = '000646', M = '0600234046',
  N = '06004640', O = '103041453616050110', P = '06003041423303', Q = '103041453616050110 2446', R = '06003041423303 2346',
  S = '413010010213334445361605', T = '0040 2026', U = '000516364540', V = '002640', W = '0016233640', X = '0046 4006', Y = '002340 2326',
  Z = '00400646',
  a = '12324346 441405163645', b = '0006 0312324345361605', c = '4332120305163645', d = '4046 4332120305163645', e = '04444332120305163645',
  f = '41302126 1232', g = '4332120305163645 42473818', h = '0006 0312324346', i = '2226 2021', j = '22271807 2021', k = '0006 420446',
  l = '2026', m = '0602 03122326 23324346', n = '0602 0312324346', o = '123243453616050312', p = '0208 0312324345361605',
  q = '4248 4332120305163645', r = '0602 031232', s = '43321203143445361605', t = '20253646 1242', u = '0205163645 4246', v = '022642',
  w = '0216233642', x = '0246 4206', y = '0226 422618', z = '02420646',
  ['0'] = '103041453616050110', ['1'] = '112026 1636', ['2'] = '01103041420646', ['3'] = '0110304142334445361605 2333', ['4'] = '300444 3036',
  ['5'] = '400003334445361605', ['6'] = '4130100105163645443303', ['7'] = '004016', ['8'] = '103041423313020110 1304051636454433',
  ['9'] = '0516364541301001021343',
  ['.'] = '2526', [','] = '252718', ['-'] = '1333', ['+'] = '1333 2224', ['('] = '30212536', [')'] = '10212516', ['='] = '1232 1434',
  [':'] = '2223 2526', ['%'] = '4006 0111 3545', ['/'] = '4006', ['_'] = '0747', ["'"] = '2021', ['['] = '30202636', [']'] = '10202616',
  ['!'] = '2023 2526', ['?'] = '011030414223 2526', ['"'] = '1012 3032', ['#'] = '1016 3036 0242 0444', ['$'] = '413010010213334445361605 2026',
  ['&'] = '4611203105163644', ['*'] = '2024 0143 0341', [';'] = '2223 252718', ['<'] = '410345', ['>'] = '014305', ['\\'] = '0046', ['^'] = '012041',
  ['@'] = '46160501103041443432121434', ['`'] = '1021', ['{'] = '30212213242536', ['|'] = '2027', ['}'] = '10212233242516', ['~'] = '03123443',
  -- squared, times, degree, plus-minus; dash, minus, micro
  ['\194\178'] = '011020310333', ['\195\151'] = '1335 3315', ['\194\176'] = '2031221120', ['\194\177'] = '0242 2024 0545',
  ['\226\128\147'] = '0343', ['\226\136\146'] = '0343', ['\194\181'] = '0208 0205163645 4246',
}
local UNKNOWN = '0040460600'
local SPACING, SPACE = 1.9, 3 -- columns between glyphs, columns of a blank
local ROUND = 1.3 -- how far from a corner its rounding begins, at most

local M = { HEIGHT = 6 } -- rows of a capital

local function toward(p, q)
  local dx, dy = q[1] - p[1], q[2] - p[2]
  local length = math.sqrt(dx * dx + dy * dy)
  local share = math.min(0.5, ROUND / length)
  return { p[1] + share * dx, p[2] + share * dy }, dx / length, dy / length
end

-- Adds the corner q between p and r to out: a parabola where the line turns by less than 60 degrees, else the point.
local function add_corner(out, p, q, r)
  local from, ax, ay = toward(q, p)
  local to, bx, by = toward(q, r)
  if ax * bx + ay * by > -0.5 then
    out[#out + 1] = q
    return
  end
  for i = 0, 4 do
    local t = i / 4
    local a, b, c = (1 - t) ^ 2, 2 * t * (1 - t), t ^ 2
    out[#out + 1] = { a * from[1] + b * q[1] + c * to[1], a * from[2] + b * q[2] + c * to[2] }
  end
end

local function rounded(points)
  local n, out = #points, {}
  local first, last = points[1], points[n]
  local closed = first[1] == last[1] and first[2] == last[2]
  if not closed then out[1] = first end
  for i = 2, n - 1 do add_corner(out, points[i - 1], points[i], points[i + 1]) end
  if closed then
    add_corner(out, points[n - 1], last, points[2])
    out[#out + 1] = out[1]
  else
    out[#out + 1] = last
  end
  return out
end

-- Polylines of a text, each a list of {column, row} from the text's left edge, and the text's width in columns.
function M.strokes(text)
  local out, at = {}, 0
  for character in text:gmatch('[^\128-\191][\128-\191]*') do
    local left, right, drawn = math.huge, -math.huge, {}
    for stroke in (character == ' ' and '' or glyphs[character] or UNKNOWN):gmatch('%S+') do
      local points = {}
      for x, y in stroke:gmatch('(%d)(%d)') do
        points[#points + 1] = { tonumber(x), tonumber(y) }
        left, right = math.min(left, x), math.max(right, x)
      end
      drawn[#drawn + 1] = points
    end
    for _, points in ipairs(drawn) do
      for _, p in ipairs(points) do p[1] = p[1] - left + at end
      out[#out + 1] = rounded(points)
    end
    at = at + (drawn[1] and right - left + SPACING or SPACE)
  end
  return out, math.max(0, at - SPACING)
end

-- Whether a character has a glyph of its own.
function M.has(character) return character == ' ' or glyphs[character] ~= nil end

return M
