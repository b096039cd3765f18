-- Busted's option for the tests that name a device, as specs with rows for several do.
return function(device) return ("--filter='%s%%f[^%%w-]'"):format((device:gsub('%-', '%%-'))) end
