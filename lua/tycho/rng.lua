-- The default generator for initial weights; experiments hand their own generators to everything else.
local generator = require 'tycho.generator'

local M = { generator = generator(0, 0) }

-- All later draws of initial weights follow from seed.
function M.seed(seed) M.generator = generator(seed, 0) end

return M
