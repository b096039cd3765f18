-- Calls fn(...) with what it writes to stderr, such as progress lines, going to a file. Returns what it returns.
-- luacheck: globals io.stderr
return function(path, fn, ...)
  local stderr = io.stderr
  io.stderr = assert(io.open(path, 'w'))
  local results = { pcall(fn, ...) }
  io.stderr:close()
  io.stderr = stderr
  if not results[1] then error(results[2], 0) end
  return unpack(results, 2, table.maxn(results))
end
