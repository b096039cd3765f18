-- Moves a model and its probe to a device; returns them with optimisers and meters as training.step takes them. options: {optimizer =, probe =
-- (options of Adam), amp =, init_scale = (of the loss in float16; GradScaler's own unless given)}.
local tycho = require 'tycho'
local new_meters = require 'tycho.train.meters'

return function(where, model, probe, options)
  model:to(where)
  probe:to(where)
  return { modules = { model = model, probe = probe }, meters = new_meters(), optimizers = {
    optimizer = tycho.optim.Adam(model:parameters(), options.optimizer), probe_optimizer = tycho.optim.Adam(probe:parameters(), options.probe),
    scaler = options.amp == 'fp16' and tycho.optim.GradScaler(where, { init_scale = options.init_scale }) or nil } }
end
