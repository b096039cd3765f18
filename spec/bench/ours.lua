-- Our side of one row of the benchmark: ./tycho spec/bench/ours.lua KIND ARGUMENT ...
-- Sets the work up, runs it twice, says "ready PID", and then answers each line that it reads: "go" with the seconds of one
-- measurement, "memory" with the largest resident size of this process in kB.
local ffi = require 'ffi'
local tycho = require 'tycho'
local lib = tycho.lib
local new_meters = require 'tycho.train.meters'
local models = require 'experiments.contextssl.model'
local context_mask = require 'experiments.contextssl.context_mask'
local training = require 'experiments.contextssl.training'
ffi.cdef 'int getpid(void);'

local generator = tycho.generator(1)

local function images(count, side)
  return tycho.empty_image({ count, 3, side, side }):copy_(generator:normal_tensor { count, 3, side, side })
end
local function seconds(work)
  local start = lib.cpu.ty_now()
  work()
  return lib.cpu.ty_now() - start
end
local function drop_gradients(module)
  for _, p in ipairs(module:parameters()) do
    if p.grad then p.grad.storage:free() end
    p.grad = nil
  end
end

local kinds = {}

-- Forward and backward of ResNet18 without the classifier.
function kinds.resnet(count, side)
  local net, x = tycho.nn.ResNet(18, 64), images(count, side)
  local dy = generator:normal_tensor { count, 512 }
  return function()
    drop_gradients(net)
    return seconds(function() tycho.scope(function() net(x):backward(dy) end) end)
  end
end

function kinds.resnet_forward(count, side)
  local net, x = tycho.nn.ResNet(18, 64):eval(), images(count, side)
  return function()
    return seconds(function() tycho.scope(function() tycho.no_grad(net, x) end) end)
  end
end

local function new_predictor(width)
  return models.Predictor { features = 512, actions = 6, projection_dim = 512, n_embd = width, n_layer = 3, n_head = 4, block_size = 128 }
end

-- Forward and backward of the predictor on 4 sequences of 128 tokens.
function kinds.gpt(width)
  local predictor = new_predictor(width)
  local f, r, dy = generator:normal_tensor { 512, 512 }:requires_grad_(), generator:normal_tensor { 256, 6 }, generator:normal_tensor { 512, 512 }
  return function()
    drop_gradients(predictor)
    f.grad = nil
    return seconds(function()
      tycho.scope(function()
        local masks = {}
        for i = 1, 3 do masks[i] = context_mask.random_mask(128, 0.9, nil, generator) end
        predictor(f, r, masks):backward(dy)
      end)
    end)
  end
end

-- A whole training step at the published sizes, Adam included, on `pairs` pairs.
function kinds.contextssl(pairs_)
  local config = { backbone = 'resnet18', projection_dim = 512, n_embd = 2048, n_layer = 3, n_head = 4, block_size = 128, temperature = 0.1,
    weight_equiv_loss = 5, random_mask = true, mask_prob = 0.9, nt_xent_clamp = true }
  local model, probe = models.ContextSSL(config), models.OnlineProbe(512, 512, 55)
  local parts = { modules = { model = model, probe = probe }, meters = new_meters(), optimizers = {
    optimizer = tycho.optim.Adam(model:parameters(), { weight_decay = 1e-3 }),
    probe_optimizer = tycho.optim.Adam(probe:parameters(), { lr = 1e-3, weight_decay = 1e-6 }) } }
  local batch = { x = images(2 * pairs_, 128), r = generator:normal_tensor { pairs_, 6 }, latents = generator:normal_tensor { pairs_, 2, 6 },
    y = tycho.zeros({ pairs_ }, 'i64') }
  return function()
    return seconds(function()
      tycho.scope(function()
        training.step(parts, batch, 'rot', context_mask.training_masks(config, generator), config, 5e-5)
      end)
    end)
  end
end

function kinds.adam(width)
  local parameters = new_predictor(width):parameters()
  for _, p in ipairs(parameters) do p.grad = tycho.keep(tycho.zeros_like(p):fill_(0.01)) end
  local optimizer = tycho.optim.Adam(parameters, { weight_decay = 1e-3 })
  return function() return seconds(function() optimizer:step() end) end
end

-- Sums of two tensors of one element, 100 in a chain that records gradients; seconds of one op.
local CHAIN, CHAINS = 100, 1000
function kinds.tiny(back)
  local x, y = tycho.ones({ 1 }):requires_grad_(), tycho.ones { 1 }
  local dy = tycho.ones { 1 }
  local function chain()
    local z = x
    for _ = 1, CHAIN do z = z + y end
    if back == 1 then z:backward(dy) end
  end
  return function()
    return seconds(function()
      for _ = 1, CHAINS do tycho.scope(chain) end
    end) / (CHAIN * CHAINS)
  end
end

local function resident()
  return tonumber(io.open('/proc/self/status'):read('*a'):match('VmHWM:%s*(%d+) kB'))
end

local list = { ... }
local arguments = {}
for i = 2, #list do
  if list[i] == 'exact' then tycho.set_exact(true) else arguments[#arguments + 1] = tonumber(list[i]) end
end
local measure = kinds[list[1]](unpack(arguments))
for _ = 1, 2 do measure() end
io.stdout:setvbuf 'no'
print('ready ' .. ffi.C.getpid())
for line in io.lines() do print(line == 'memory' and resident() or ('%.9f'):format(measure())) end
