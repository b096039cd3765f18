-- goes back inwards by one frame after :up, in the end to the prompt's own variables
return function(session) session:move(-1) end
