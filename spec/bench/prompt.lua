-- How fast the prompt is, in a pseudo-terminal as a person meets it: ./tycho spec/bench/prompt.lua
-- Start-up is from the command to the first prompt, completion from TAB to the drawn line, the first one of a session included. Medians over
-- ROUNDS sessions; exit status 1 when one misses its bound.
local lib = require 'tycho.lib'
local pty = require 'spec.pty'

local ROUNDS, START, COMPLETION = 15, 0.1, 0.05 -- seconds
local texts = { { 'tycho.ones{2}:contig', 'uous' }, { 'tycho.optim.Ad', 'am' }, { 'tycho.ones{2}:su', 'sub' },
  { ':rel', 'oad' }, { 'open("learning_r', 'ate=' } }

local function median(list)
  table.sort(list)
  return list[math.ceil(#list / 2)]
end

local starts, completions = {}, {}
for i = 1, #texts do completions[i] = {} end
for round = 1, ROUNDS do
  local start = lib.cpu.ty_now()
  local p = pty.start(('cd %s && exec env HOME=/nowhere NO_COLOR=1 TERM=xterm ./tycho'):format(lib.root))
  p:expect '1> '
  starts[round] = lib.cpu.ty_now() - start
  for i, text in ipairs(texts) do
    p:send(text[1])
    p:expect(text[1])
    os.execute 'sleep 0.02' -- what is drawn below the line comes with it
    start = lib.cpu.ty_now()
    p:send '\t'
    p:expect(text[2])
    completions[i][round] = lib.cpu.ty_now() - start
    p:send '\3'
    p:expect '\27[?2004h'
  end
  p:send '\4'
  p:finish()
end

local is_met = true
local function row(name, list, bound)
  local middle = median(list)
  is_met = is_met and middle < bound
  print(('%-36s %7.1f ms (at most %.0f)'):format(name, 1e3 * middle, 1e3 * bound))
end
row('start-up', starts, START)
for i, text in ipairs(texts) do row('completion of ' .. text[1], completions[i], COMPLETION) end
os.exit(is_met and 0 or 1)
