-- The API reference as one HTML page, from the same comments as the prompt's help: ops and modules in order of their names, then the settings.
local help = require 'tycho.help'
local escape = require('tycho.io.markup').escape

local M = {}

local style = [[
body { font: 15px/1.5 sans-serif; color: #222; max-width: 1000px; margin: 2em auto; padding: 0 1em; }
h2 { margin-top: 2em; border-bottom: 1px solid #ddd; } h3 { font: bold 1em monospace; margin: 1.2em 0 .2em; overflow-wrap: anywhere; }
pre { margin: 0; white-space: pre-wrap; font: inherit; } small { color: #777; } nav { columns: 3; } a { color: #0072b2; text-decoration: none; }
]]

-- The chapter of an entry: its folder.
local function chapter_of(entry)
  local path = help.display(entry.path or '')
  if path:match('^experiments/.*%.yml$') then return 'settings' end
  if path == 'csrc/map.def' or path:match('^lua/tycho/ops/') then return 'ops' end
  return path:match('^lua/(tycho/[%w_]+)/') or path:match('^lua/(tycho)/') or path:match('^(.*)/') or path
end

-- The text of the page.
function M.text()
  local chapters, names = {}, {}
  for _, entry in ipairs(help.all()) do
    local chapter = chapter_of(entry)
    if not chapters[chapter] then
      chapters[chapter] = {}
      names[#names + 1] = chapter
    end
    table.insert(chapters[chapter], entry)
  end
  table.sort(names)
  local page = { ('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Tycho %s: reference</title><style>%s</style></head><body>')
    :format(require('tycho').version, style), '<h1>Reference</h1>\n<nav>' }
  for _, name in ipairs(names) do page[#page + 1] = ('<a href="#%s">%s</a><br>'):format(escape(name), escape(name)) end
  page[#page + 1] = '</nav>'
  for _, name in ipairs(names) do
    page[#page + 1] = ('<h2 id="%s">%s</h2>'):format(escape(name), escape(name))
    for _, entry in ipairs(chapters[name]) do
      page[#page + 1] = ('<h3 id="%s">%s</h3>\n<pre>%s</pre>\n<small>%s%s</small>'):format(escape(entry.name), escape(entry.signature),
        escape(entry.text), escape(help.display(entry.path or '')), entry.line and ':' .. entry.line or '')
    end
  end
  page[#page + 1] = '</body></html>\n'
  return table.concat(page, '\n')
end

return M
