-- Checks every op file of a golden folder: forward, and the gradient of every input. What an op is called with follows from ops.json.
local tycho = require 'tycho'
local json = require 'tycho.io.json'
local npz = require 'tycho.io.npz'
local nt_xent = require 'tycho.loss.nt_xent'
local metrics = require 'experiments.contextssl.metrics'
local compare = require 'spec.parity.compare'

-- The float masks of the reference are added to the scores; ones change nothing. Booleans hide.
local function boolean_mask(mask) return mask.dtype == 'u8' and mask or nil end

local function norm_options(params, a)
  return { training = params.training, momentum = params.momentum, eps = params.eps, running_mean = a.running_mean, running_var = a.running_var }
end

-- By the beginning of the file's name: (arrays, parameters) -> result; inputs that get a gradient are marked beforehand.
local calls = {
  { 'conv', function(a, p) return a.x:conv2d(a.w, p.stride, p.padding) end },
  { 'batch_norm', function(a, p) return a.x:batch_norm(a.weight, a.bias, nil, norm_options(p, a)) end },
  { 'maxpool', function(a, p) return a.x:max_pool2d(p.kernel or 3, p.stride or 2, p.padding or 1) end },
  { 'global_avgpool', function(a) return a.x:avg_pool2d() end },
  { 'linear', function(a) return a.x:linear(a.w, a.b) end },
  { 'layer_norm', function(a, p) return a.x:layer_norm(a.w, a.b, p.eps) end },
  { 'gelu', function(a) return a.x:gelu() end },
  { 'relu', function(a) return a.x:relu() end },
  { 'softmax', function(a) return a.x:softmax() end },
  { 'attention', function(a) return a.q:attention(a.k, a.v, { mask = boolean_mask(a.mask) }) end },
  { 'cross_entropy', function(a) return a.x:cross_entropy(a.target) end },
  { 'mse_loss', function(a) return a.x:mse(a.target) end },
  { 'normalize', function(a, p) return a.x:normalize(p.eps) end },
  { 'nt_xent', function(a, p) return nt_xent(a.x, p.temperature) end },
  { 'cosine_similarity', function(a, p) return a.a:cosine_similarity(a.b, p.eps) end },
  { 'basic_block', function(a)
    local train = { training = true }
    local function norm(x, g, b, residual, relu)
      return x:batch_norm(g, b, residual, { training = true, relu = relu })
    end
    local y = norm(a.x:conv2d(a.w1, 2, 1), a.g1, a.b1, nil, true)
    local identity = a.x:conv2d(a.wd, 2, 0):batch_norm(a.gd, a.bd, nil, train)
    return norm(y:conv2d(a.w2, 1, 1), a.g2, a.b2, identity, true)
  end },
}

local function check_adam(name, a, params, check)
  local p = a.p0:clone():requires_grad_()
  local untouched = a.q_never_had_a_gradient:clone():requires_grad_()
  local optimizer = tycho.optim.Adam({ p, untouched }, { weight_decay = params.weight_decay, beta1 = params.betas[1],
    beta2 = params.betas[2], eps = params.eps })
  for step = 0, a.grads:size(0) - 1 do
    p.grad = a.grads[step]:clone()
    optimizer.lr = a.lr[step]:item()
    optimizer:step()
    local state = optimizer.state[1]
    for key, got in pairs { p = p, exp_avg = state.exp_avg, exp_avg_sq = state.exp_avg_sq } do
      check.l2(('%s step %d %s'):format(name, step + 1, key), got, a[key][step], 1e-5)
    end
  end
  check.abs(name .. ' parameter without a gradient', untouched, a.q_never_had_a_gradient, 0)
end

local function check_similarities(name, a, check)
  local positive, negative, each = metrics.similarities(a.x)
  check.l2(name .. ' pos', positive, a.pos, 1e-5)
  check.l2(name .. ' neg', negative, a.neg, 1e-5)
  check.l2(name .. ' all_pos', each, a.all_pos, 1e-5)
end

local function check_op(name, a, params, call, check)
  local tolerance = name == 'batch_norm_train_large_mean' and 1e-4 or 1e-5
  local result = a.y and 'y' or 'loss'
  local upstream = a.gy or a['gy_' .. result]
  for key in pairs(a) do
    local input = key:match('^g_(.*)$')
    if input then a[input]:requires_grad_() end
  end
  local y = call(a, params)
  check.l2(name .. ' ' .. result, y, a[result], tolerance)
  y:backward(upstream:reshape(y.shape))
  for key, expected in pairs(a) do
    local input = key:match('^g_(.*)$')
    if input then check.l2(name .. ' ' .. key, a[input].grad or tycho.zeros(a[input].shape), expected, tolerance) end
    local buffer = key:match('^(running_.*)_after$')
    if buffer then check.l2(name .. ' ' .. key, a[buffer], expected, tolerance) end
  end
end

-- dir: a folder with ops.json and one .npz an entry.
return function(dir, report)
  local check = compare.reporter(report)
  local ops = json.load(dir .. '/ops.json')
  local names = {}
  for name in pairs(ops) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    compare.guard(report, name, function()
      local arrays, params = npz.load(('%s/%s.npz'):format(dir, name)), ops[name].params or {}
      if name:match('^adam') then return check_adam(name, arrays, params, check) end
      if name == 'compute_similarities' then return check_similarities(name, arrays, check) end
      for _, entry in ipairs(calls) do
        if name:sub(1, #entry[1]) == entry[1] then return check_op(name, arrays, params, entry[2], check) end
      end
      error('no op of this name is known', 0)
    end)
  end
end
