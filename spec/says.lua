-- Asserts that each of some texts stands in what was said.
return function(said, ...)
  for _, text in ipairs { ... } do
    if not said:find(text, 1, true) then error(('expected %q in: %s'):format(text, said), 2) end
  end
end
