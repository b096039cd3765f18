-- The signature of the function whose arguments are being typed.
local complete = require 'tycho.repl.complete'
local help = require 'tycho.help'
local lexer = require 'tycho.repl.lexer'
local comments = require 'tycho.help.comments'

-- The name before the innermost parenthesis or brace that is open at the end of text.
local function open_call(text)
  local open = {}
  for kind, first, last in lexer.tokens(text) do
    local token = kind == 'symbol' and text:sub(first, last)
    if token == '(' or token == '{' or token == '[' then
      open[#open + 1] = { token, first }
    elseif token == ')' or token == '}' or token == ']' then
      open[#open] = nil
    end
  end
  for i = #open, 1, -1 do
    local name = open[i][1] ~= '[' and text:sub(1, open[i][2] - 1):match('([%a_][%w_.:]*)%s*$')
    if name and not lexer.keywords[name] and not text:sub(1, open[i][2] - 1):match('function%s+[%w_.:]+$') then return name end
  end
end

-- One line, or nil.
return function(environment, text)
  local name = open_call(text)
  if not name then return nil end
  local value = complete.evaluate(environment, name)
  local entry
  if value == nil then
    -- A method of a call's result: most likely an op.
    local method = name:match('[:.]?([%a_][%w_]*)$')
    if text:find('[%)%}]:' .. method) then entry = help.of(require('tycho.tensor').Tensor[method], method) end
  else
    entry = help.of(value, name)
  end
  if not entry then return nil end
  local summary = entry.text ~= '' and comments.summary(entry.text) or nil
  return summary and ('%s  %s'):format(entry.signature, summary) or entry.signature
end
