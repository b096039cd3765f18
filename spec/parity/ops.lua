-- Checks every op file of a golden folder: forward, and the gradient of every input. What an op is called with follows from ops.json and from
-- the shapes.
local lfs = require 'lfs'
local tycho = require 'tycho'
local npz = require 'tycho.io.npz'
local nt_xent = require 'tycho.loss.nt_xent'
local metrics = require 'experiments.contextssl.metrics'
local compare = require 'spec.parity.compare'
local folder = require 'spec.parity.folder'

-- Booleans hide. A float mask of the reference is added to the scores; a constant, the only kind that it uses, changes nothing.
local function boolean_mask(mask)
  if not mask or mask.dtype == 'u8' then return mask end
  local flat = mask:contiguous():reshape { -1 }
  if flat:max():item() ~= -(-flat):max():item() then error('a float mask that is not constant has no counterpart here', 0) end
end

local function norm_options(params, a)
  return { training = params.training, momentum = params.momentum, eps = params.eps, running_mean = a.running_mean, running_var = a.running_var }
end

local function softmax(x, dim)
  dim = dim or -1
  return x:transpose(dim, -1):softmax():transpose(dim, -1)
end

-- ResNet's basic block; its stride is how much smaller the result is.
local function basic_block(a)
  local stride = math.ceil(a.x:size(2) / a.y:size(2))
  local function norm(x, g, b, residual, relu) return x:batch_norm(g, b, residual, { training = true, relu = relu }) end
  local identity = a.wd and norm(a.x:conv2d(a.wd, stride, 0), a.gd, a.bd) or a.x
  return norm(norm(a.x:conv2d(a.w1, stride, 1), a.g1, a.b1, nil, true):conv2d(a.w2, 1, 1), a.g2, a.b2, identity, true)
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
  { 'softmax', function(a, p) return softmax(a.x, p.dim) end },
  { 'attention', function(a) return a.q:attention(a.k, a.v, { mask = boolean_mask(a.mask) }) end },
  { 'cross_entropy', function(a) return a.x:cross_entropy(a.target) end },
  { 'mse_loss', function(a) return a.x:mse(a.target) end },
  { 'normalize', function(a, p) return a.x:normalize(p.eps) end },
  { 'nt_xent', function(a, p) return nt_xent(a.x, p.temperature) end },
  { 'cosine_similarity', function(a, p) return a.a:cosine_similarity(a.b, p.eps) end },
  { 'basic_block', basic_block },
}

-- check.l2 with ten times the folder's noise, and no less than `least`.
local function bounded(check, noise, name)
  return function(label, got, expected, key, least)
    check.l2(('%s %s'):format(name, label), got, expected, math.max(least or 1e-5, 10 * noise(name, key)))
  end
end

local function check_adam(name, a, params, check, l2)
  local p = a.p0:clone():requires_grad_()
  local idle = rawget(a, 'q_never_had_a_gradient')
  local untouched = idle and idle:clone():requires_grad_()
  local optimizer = tycho.optim.Adam({ p, untouched }, { weight_decay = params.weight_decay, beta1 = params.betas[1],
    beta2 = params.betas[2], eps = params.eps })
  for step = 0, a.grads:size(0) - 1 do
    p.grad = a.grads[step]:clone()
    optimizer.lr = a.lr:numel() > 1 and a.lr[step]:item() or a.lr:item()
    optimizer:step()
    local state = optimizer.state[1]
    for _, entry in ipairs { { 'p', p }, { 'exp_avg', state.exp_avg }, { 'exp_avg_sq', state.exp_avg_sq } } do
      l2(('step %d %s'):format(step + 1, entry[1]), entry[2], a[entry[1]][step], entry[1])
    end
  end
  if idle then check.abs(name .. ' parameter without a gradient', untouched, idle, 0) end
end

local function check_similarities(a, l2)
  local positive, negative, each = metrics.similarities(a.x)
  l2('pos', positive, a.pos, 'pos')
  l2('neg', negative, a.neg, 'neg')
  l2('all_pos', each, a.all_pos, 'all_pos')
end

local function sorted_keys(t)
  local keys = {}
  for key in pairs(t) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

local function check_op(name, a, params, call, l2)
  -- Batch norm's one-pass variance would lose digits in this case; two passes lose fewer, and more than elsewhere.
  local least = name:match('large_mean') and 1e-4 or 1e-5
  local result = a.y and 'y' or 'loss'
  local keys = sorted_keys(a)
  for _, key in ipairs(keys) do
    local input = key:match('^g_(.*)$')
    if input then a[input]:requires_grad_() end
  end
  local y = call(a, params)
  l2(result, y, a[result], result, least)
  local upstream = a.gy or a['gy_' .. result]
  y:backward(upstream and upstream:reshape(y.shape))
  for _, key in ipairs(keys) do
    local input, buffer = key:match('^g_(.*)$'), key:match('^(running_.*)_after$')
    if input then l2(key, a[input].grad or tycho.zeros(a[input].shape), a[key], key, least) end
    if buffer then l2(key, a[buffer], a[key], key, least) end
  end
end

-- dir: a folder with ops.json and one .npz an entry.
return function(dir, report)
  local check, noise = compare.reporter(report), folder.noise(dir)
  local ops = folder.json(dir .. '/ops.json')
  for _, name in ipairs(sorted_keys(ops)) do
    local path = ('%s/%s.npz'):format(dir, name)
    compare.guard(report, name, function()
      local arrays, params, l2 = npz.load(path), setmetatable(rawget(ops[name], 'params') or {}, nil), bounded(check, noise, name)
      if name:match('^adam') then return check_adam(name, arrays, params, check, l2) end
      if name:match('^compute_similarities') then return check_similarities(arrays, l2) end
      for _, entry in ipairs(calls) do
        if name:sub(1, #entry[1]) == entry[1] then return check_op(name, arrays, params, entry[2], l2) end
      end
      error('no op of this name is known', 0)
    end, { path })
  end
  for file in lfs.dir(dir) do
    local name = file:match('^(.*)%.npz$')
    if name and not rawget(ops, name) then compare.skip(report, name, 'it is not in ops.json') end
  end
end
