-- Rules for the values of settings. A rule is { expected = what must stand there, accepts = function(value) }; its sentence is made by
-- config.check. Values of the right kind come here: kinds are checked against the defaults (tycho.config.change).
local nearest = require 'tycho.nearest'

local M = {}

local function is_whole(value) return type(value) == 'number' and value == math.floor(value) and math.abs(value) < 2^53 end

-- A whole number from least to most (no limit when nil).
function M.whole(least, most)
  local expected = most and ('a whole number from %.0f to %.0f'):format(least, most) or ('a whole number >= %.0f'):format(least)
  return { expected = expected, accepts = function(value) return is_whole(value) and value >= least and value <= (most or math.huge) end }
end

-- A finite number from least to most (no limit when nil).
function M.number(least, most)
  local expected = most and ('a number from %g to %g'):format(least, most) or ('a number >= %g'):format(least)
  return { expected = expected, accepts = function(value)
    return type(value) == 'number' and value >= least and value <= (most or math.huge) and value < math.huge
  end }
end

function M.positive()
  return { expected = 'a number > 0', accepts = function(value) return type(value) == 'number' and value > 0 and value < math.huge end }
end

function M.flag() return { expected = 'true or false', accepts = function(value) return type(value) == 'boolean' end } end

-- One of the words; near ones are suggested.
function M.word(words)
  local expected = #words == 1 and words[1] or table.concat(words, ', ', 1, #words - 1) .. ' or ' .. words[#words]
  return {
    expected = expected,
    accepts = function(value)
      for _, word in ipairs(words) do
        if value == word then return true end
      end
    end,
    advice = function(value)
      local near = nearest(tostring(value), words)
      return near and ("; did you mean '%s'?"):format(near)
    end,
  }
end

-- A list whose entries all obey the rule; count: how many there must be (any number when nil).
function M.list(rule, count)
  return {
    expected = ('a list of %s, each %s'):format(count or 'values', rule.expected),
    accepts = function(value)
      if type(value) ~= 'table' or count and #value ~= count then return false end
      for _, entry in ipairs(value) do
        if not rule.accepts(entry) then return false end
      end
      return true
    end,
  }
end

-- Any rule of one's own.
function M.rule(expected, accepts, advice) return { expected = expected, accepts = accepts, advice = advice } end

return M
