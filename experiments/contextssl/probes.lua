-- Freshly trained probes of the pair evaluation: from the embeddings of an object's two views they predict the action between
-- them. Rotation by an MLP (two hidden layers of 1024), colour by a linear layer; Adam, all heads of one evaluation together.
local tycho = require 'tycho'
local nn = tycho.nn
local model = require 'experiments.contextssl.model'
local metrics = require 'experiments.contextssl.metrics'

local PairProbe = {}
PairProbe.__index = PairProbe
local M = {}

-- A probe for embeddings of the given width.
function M.pair(width, learning_rate)
  local self = setmetatable({ rotation = model.mlp(2 * width, 1024, 4), color = nn.Linear(2 * width, 2) }, PairProbe)
  local parameters = self.rotation:parameters()
  for _, p in ipairs(self.color:parameters()) do parameters[#parameters + 1] = p end
  self.optimizer = tycho.optim.Adam(parameters, { lr = learning_rate })
  return self
end

-- One step on x (B, 2 width) and actions r (B,6). Returns the loss tensor.
function PairProbe:step(x, r)
  return tycho.scope(function()
    local loss = self.rotation(x):mse(r:narrow(1, 0, 4)) + self.color(x):mse(r:narrow(1, 4, 2))
    self.optimizer:zero_grad()
    loss:backward()
    self.optimizer:step()
    return loss:detach()
  end)
end

-- R2 of rotation and colour on x (N, 2 width), r (N,6).
function PairProbe:score(x, r)
  return tycho.no_grad(tycho.scope, function()
    return { rotation = metrics.r2(self.rotation(x), r:narrow(1, 0, 4)), color = metrics.r2(self.color(x), r:narrow(1, 4, 2)) }
  end)
end

return M
