-- From typed text to values: expressions without 'return', locals that stay, unfinished input. Knows no terminal.
local interrupt = require 'tycho.repl.interrupt'
local lexer = require 'tycho.repl.lexer'
local lib = require 'tycho.lib'
local trace = require 'tycho.repl.trace'

local M = {}

-- An environment in which assignments of the session live; everything global is visible.
function M.environment()
  return setmetatable({}, { __index = _G })
end

local opening = { ['function'] = true, ['do'] = true, ['then'] = true, ['repeat'] = true, ['else'] = true, ['('] = true, ['{'] = true, ['['] = true }
local closing = { ['end'] = true, ['until'] = true, ['elseif'] = true, ['else'] = true, [')'] = true, ['}'] = true, [']'] = true }

-- A local at the prompt would vanish with its line, so those outside any block become variables of the session.
local function keep_locals(text)
  local out, depth, skipped = {}, 0, 0
  for kind, first, last in lexer.tokens(text) do
    local token = (kind == 'keyword' or kind == 'symbol') and text:sub(first, last)
    if token == 'local' and depth == 0 then
      -- 'local a, b' without values may be followed by another statement on the same line; only the list itself gets its nil.
      local list, behind = text:match('^%s*([%a_][%w_]*)()', last + 1)
      while list do
        local following, stop = text:match('^(%s*,%s*[%a_][%w_]*)()', behind)
        if not following then break end
        list, behind = list .. following, stop
      end
      if list and list ~= 'function' and not text:match('^%s*=', behind) then
        out[#out + 1] = list .. ' = nil '
        skipped = behind - 1
      end
    elseif first > skipped then
      out[#out + 1] = text:sub(first, last)
      if closing[token] then depth = depth - 1 end
      if opening[token] then depth = depth + 1 end
    end
  end
  return table.concat(out)
end

-- The text up to the last line break or semicolon outside blocks, and what follows; nil when there is none.
local function split_last(text)
  local depth, at = 0, nil
  for kind, first, last in lexer.tokens(text) do
    local token = (kind == 'keyword' or kind == 'symbol') and text:sub(first, last)
    if closing[token] then depth = depth - 1 end
    if opening[token] then depth = depth + 1 end
    if depth == 0 and last < #text and (token == ';' or kind == 'space' and text:find('\n', first, true)) then at = last end
  end
  if at then return text:sub(1, at), text:sub(at + 1) end
end

-- The text as statements of a script; what printed at the prompt is printed there.
function M.as_script(text, printed)
  if printed and loadstring('return ' .. text) then return ('print(%s)'):format(text) end
  if loadstring(text) then return text end
  local before, last = split_last(text)
  return ('%sprint(%s)'):format(before or '', last or text)
end

-- A function of the text, or nil and a message, or nil and true when more lines are needed. A text that is or ends with an expression returns it.
-- name: what to call the text in messages.
function M.compile(text, environment, name)
  name = '=' .. (name or 'prompt')
  local chunk, message = loadstring('return ' .. text, name)
  if not chunk then
    local unfinished = message:match("near '<eof>'$")
    chunk, message = loadstring(text, name)
    if chunk then
      chunk = loadstring(keep_locals(text), name) or chunk
    else
      local before, last = split_last(keep_locals(text))
      chunk = before and loadstring(('%s return %s'):format(before, last), name)
    end
    if not chunk then
      if unfinished or message:match("near '<eof>'$") then return nil, true end
      return nil, message
    end
  end
  return setfenv(chunk, environment)
end

-- Whether a text needs no more lines.
function M.is_whole(text)
  local _, message = M.compile(text, _G)
  return message ~= true
end

local function pack(ok, ...)
  return ok, { n = select('#', ...), ... }
end

-- Runs fn(...), which Ctrl-C ends: true and its results packed as {n =, ...}, or false, the message, and the message with the frames that it came
-- from.
function M.run(fn, ...)
  local text
  local function handler(message)
    debug.sethook() -- a late Ctrl-C would be an error in the handler
    text = lib.trace and lib.trace.message == message and lib.trace.text or trace.traceback(message, 2)
    return message
  end
  local before = lib.traceback
  lib.trace, lib.traceback = nil, trace.traceback
  local ok, results = pack(interrupt.call(xpcall, fn, handler, ...))
  lib.traceback = before
  if ok then return true, results end
  return false, tostring(results[1]), text or tostring(results[1])
end

return M
