-- Whether a text is UTF-8 (RFC 3629): no character longer than it must be, no surrogates, none beyond U+10FFFF.
local long = {
  '[\194-\223][\128-\191]', '\224[\160-\191][\128-\191]', '[\225-\236\238\239][\128-\191][\128-\191]', '\237[\128-\159][\128-\191]',
  '\240[\144-\191][\128-\191][\128-\191]', '[\241-\243][\128-\191][\128-\191][\128-\191]', '\244[\128-\143][\128-\191][\128-\191]',
}

return function(text)
  for _, character in ipairs(text:find '[\128-\255]' and long or {}) do text = text:gsub(character, '?') end
  return not text:find '[\128-\255]'
end
