-- runs on disk: ls, show, best, diff, plot, table, report, tag, rm
local lfs = require 'lfs'
local nearest = require 'tycho.nearest'

local FOLDER = 'runs' -- where they are, unless --out names another

local help = [=[
usage: ./tycho runs ls [CONDITION ...] [--tag NAME] [--sort KEY [--max]] [--metrics A,B] [--keys A,B]
       ./tycho runs show [RUN]                        status, metrics, settings, end of the log
       ./tycho runs best METRIC [CONDITION ...]       the best first; --min or --max, --count N
       ./tycho runs diff RUN RUN                      settings and metrics in which they differ
       ./tycho runs plot METRIC [RUN ...]             over the epochs, here or in --file NAME.svg or NAME.png
       ./tycho runs table [CONDITION ...]             mean and deviation over runs of equal settings; --group A,B --metrics A,B
       ./tycho runs report [RUN ...]                  report.html made anew, for a run that has not ended too
       ./tycho runs tag RUN NAME ...                  --remove takes tags away
       ./tycho runs rm RUN ...                        asks first; --yes does not
RUN: a path, a name, a part of one, or last. CONDITION: KEY=VALUE, KEY!=VALUE, or with < <= > >=, on a setting, a metric or status.
--out FOLDER: where the runs are (default runs). --csv, --md, --latex: tables in that form. A run whose files are damaged is listed with what is
wrong with it.]=]

local with_value = { out = true, tag = true, sort = true, metrics = true, keys = true, count = true, group = true, file = true }
local flags = { max = true, min = true, csv = true, md = true, latex = true, remove = true, yes = true }

local function known(set)
  local names = {}
  for name in pairs(set) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function parse(arguments)
  local words, options, i = {}, {}, 1
  while arguments[i] do
    local name, value = arguments[i]:match('^%-%-([%w-]+)=?(.*)$')
    if not name then
      words[#words + 1] = arguments[i]
    elseif flags[name] then
      options[name] = true
    elseif with_value[name] then
      if not arguments[i]:find('=', 1, true) then
        i = i + 1
        value = arguments[i]
      end
      if not value or value == '' then error(('--%s needs a value'):format(name), 0) end
      options[name] = value
    else
      local all = known(with_value)
      for _, flag in ipairs(known(flags)) do all[#all + 1] = flag end
      local near = nearest(name, all)
      error(("runs: unknown option '--%s'%s"):format(name, near and ("; did you mean '--%s'?"):format(near) or '; ./tycho runs --help lists them'), 0)
    end
    i = i + 1
  end
  return words, options
end

return function(arguments)
  if not arguments[1] or arguments[1] == '--help' or arguments[1] == '-h' then return print(help) end
  local words, options = parse(arguments)
  local name = table.remove(words, 1)
  local commands = require 'tycho.runs.commands'
  if not commands[name or ''] then
    local near = nearest(name or '', known(commands))
    error(("runs: no command '%s'; %s"):format(tostring(name), near and ("did you mean '%s'?"):format(near) or './tycho runs --help lists them'), 0)
  end
  local runs, list, is_by_path = require 'tycho.runs', {}, false
  for _, word in ipairs(words) do is_by_path = is_by_path or runs.is_path(word) end
  if options.out or not is_by_path or lfs.attributes(FOLDER) then list = runs.list(options.out or FOLDER) end
  commands[name](list, words, options)
end
