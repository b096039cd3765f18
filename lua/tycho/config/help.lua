-- --help of a script: every key with its type, value and meaning.
local node = require 'tycho.config.node'

local function rows_of(map, prefix, rows)
  for _, key in ipairs(map.keys) do
    local item = map.items[key]
    if item.kind == 'map' then
      rows_of(item, prefix .. key .. '.', rows)
    else
      table.insert(rows, { prefix .. key, item.kind == 'null' and 'any' or item.kind, node.inline(item), item.meaning or '' })
    end
  end
  return rows
end

-- Prints the help of a tree of settings; source: the file that they come from.
return function(tree, source)
  local rows = rows_of(tree, '', {})
  local width = { 0, 0, 0 }
  for _, row in ipairs(rows) do
    for i = 1, 3 do width[i] = math.min(math.max(width[i], #row[i]), 32) end
  end
  print(('usage: ./tycho %s [key=value ...] [option ...]'):format(arg and arg[0] or 'FILE.lua'))
  print [[
  key=value         changes a setting; the last of equals wins
  +key=value        adds a key, ++key=value adds or changes it, ~key removes it
options:
  --config-name, -cn NAME    settings of another file over these; a name in the folder of the script's own file, or a path
  --config-path, -cp FOLDER  where that file lies
  --cfg, -c job              print the settings and stop
  --help, -h                 this text
Values: 1e-3, True, text, 'text, with a comma', [1, 2], {a: 1}, null, '${other.key}', '${oc.env:VARIABLE,default}'.
Quote what the shell would read itself: zsh reads brackets, so write 'key=[1,2]'. hydra.run.dir means run_dir; other hydra.* keys have no effect.]]
  print(('Keys, with type, value and meaning, from %s:'):format(source))
  for _, row in ipairs(rows) do
    print((('  %%-%ds  %%-%ds  %%-%ds  %%s'):format(unpack(width)):format(unpack(row)):gsub('%s+$', '')))
  end
end
