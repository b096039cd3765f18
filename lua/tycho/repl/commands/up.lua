-- goes to the caller of an error's or a pause's place: lines then run with the variables of that frame; :down goes back
return function(session) session:move(1) end
