-- lets the program that waits go on, as Ctrl-D does; an attached training with :go 10 for 10 steps
return function(session, argument)
  local steps = tonumber(argument)
  if argument ~= '' and not (session.is_remote and steps and steps >= 1 and steps == math.floor(steps)) then
    error((':go takes a number of steps, and only in an attached training; got %s'):format(argument), 0)
  end
  if not (session.is_remote or session.is_paused) then error(':go: no program waits for this prompt; Ctrl-D ends it', 0) end
  session.is_over, session.steps = true, steps
end
