-- busted output handler: one line a file, failures in full, and the closing line 'N passed, N failed, N skipped'.
return function(options)
  local busted = require 'busted'
  local handler = require 'busted.outputHandlers.base'()
  local clock = require 'tycho.lib'.cpu.ty_now
  local started = 0

  function handler.fileStart()
    started = clock()
    handler.before = handler.successesCount + handler.failuresCount + handler.errorsCount
    return nil, true
  end
  function handler.fileEnd(file)
    local n = handler.successesCount + handler.failuresCount + handler.errorsCount - handler.before
    io.write(('%-28s %4d checks  %6.1f s\n'):format(file.name:match('[^/]*$'), n, clock() - started))
    return nil, true
  end
  function handler.suiteEnd()
    for _, kind in ipairs { 'failures', 'errors' } do
      for _, entry in ipairs(handler[kind]) do
        local message = entry.message
        if type(message) ~= 'string' then message = require 'pl.pretty'.write(message) end
        io.write(('\nFAILED %s\n%s\n%s\n'):format(entry.name, message, options.verbose and entry.trace and entry.trace.traceback or ''))
      end
    end
    for _, entry in ipairs(handler.pendings) do
      io.write(('skipped: %s: %s\n'):format(entry.name, tostring(entry.message)))
    end
    io.write(('%d passed, %d failed, %d skipped\n'):format(handler.successesCount, handler.failuresCount + handler.errorsCount,
      handler.pendingsCount))
    io.flush()
    return nil, true
  end

  busted.subscribe({ 'suite', 'end' }, handler.suiteEnd)
  busted.subscribe({ 'file', 'start' }, handler.fileStart)
  busted.subscribe({ 'file', 'end' }, handler.fileEnd)
  return handler
end
