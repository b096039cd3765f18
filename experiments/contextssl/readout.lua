-- R2 of the model's own read-out: what aug_predictor, trained beside the embedding, says of each held-out image's own rotation and hues from its
-- z+. A low value means that the read-out no longer finds an attribute there, not that it is gone (pair_probes.lua asks that).
local tycho = require 'tycho'
local metrics = require 'experiments.contextssl.metrics'

local M = {}
local SCORED = 1024 -- images scored at a time
local columns = { rotation_r2 = { 0, 4 }, color_r2 = { 4, 2 } }

-- contexts: list of {mode, c} whose z+ the store has. Returns lists {rotation_r2, color_r2} in that order, and the R2 of a constant predictor
-- {rotation, color}.
function M.run(store, contexts)
  local states = store:get('states', 'val')
  local scores = { rotation_r2 = {}, color_r2 = {} }
  tycho.no_grad(function()
    for i, context in ipairs(contexts) do
      local zplus, meters = store:get('zplus', 'val', unpack(context)), {}
      for key in pairs(columns) do meters[key] = metrics.r2_meter() end
      for start = 0, zplus:size(0) - 1, SCORED do
        local count = math.min(SCORED, zplus:size(0) - start)
        tycho.scope(function()
          local output = store.model.aug_predictor(zplus:narrow(0, start, count):to(store.model:device()):normalize())
          for key, range in pairs(columns) do
            meters[key]:add(output:narrow(1, unpack(range)), states:narrow(0, start, count):narrow(1, unpack(range)))
          end
        end)
      end
      for key, meter in pairs(meters) do scores[key][i] = meter:value() end
    end
  end)
  return scores, { rotation = metrics.floor(states:narrow(1, 0, 4)), color = metrics.floor(states:narrow(1, 4, 2)) }
end

return M
