-- Asks a policy, and checks what it returns: ask('masks', config, generator) is policies.masks(config, generator), or one sentence that names the
-- policy and what it was to return. A policy that forgets its return must not train something else.
local tycho = require 'tycho'
local environments = require 'experiments.contextssl.environments'
local policies = require 'experiments.contextssl.policies'

local is_tensor = tycho.is_tensor

local function has(value, ...)
  if type(value) ~= 'table' or is_tensor(value) then return false end
  for _, name in ipairs { ... } do
    if value[name] == nil then return false end
  end
  return true
end

local function is_mask(value) return is_tensor(value) and value.dtype == 'u8' end

-- By policy: what is expected of the value, or the two, and whether they are that. Given: the value, the policy's first argument, the second value.
local checks = {
  model = { "a model like tycho's ContextSSL, with enc and predictor", function(v) return has(v, 'enc', 'predictor', 'state_dict') end },
  optimizer = { 'an optimiser, such as tycho.optim.Adam(parameters, options)',
    function(v) return has(v, 'step', 'zero_grad', 'state_dict', 'load_state_dict') end },
  learning_rate = { 'a number', function(v) return type(v) == 'number' end },
  pairs = { 'a list of {object, view 1, view 2}', function(v)
    if type(v) ~= 'table' or #v == 0 then return false end
    for i = 1, #v do
      if type(v[i]) ~= 'table' or #v[i] ~= 3 then return false end
    end
    return true
  end },
  augment = { 'the batch: x, r, latents and y', function(v) return has(v, 'x', 'r', 'latents', 'y') end },
  environment = { table.concat(environments.names, ', '), environments.is_known },
  masks = { 'a uint8 mask (T,T), or a list of one for each layer', function(v, config)
    if is_tensor(v) then return is_mask(v) end
    if type(v) ~= 'table' or #v ~= config.n_layer then return false end
    for i = 1, #v do
      if not is_mask(v[i]) then return false end
    end
    return true
  end },
  losses = { 'a scalar, and a table that policies.measure reads', function(v, _, other)
    return is_tensor(v) and v:numel() == 1 and type(other) == 'table'
  end },
}

return function(name, first, ...)
  local policy, check = policies[name], checks[name]
  if type(policy) ~= 'function' then error(('policies.%s must be a function, got %s'):format(name, type(policy)), 0) end
  local value, other = policy(first, ...)
  if check and not check[2](value, first, other) then
    local got = type(value) == 'string' and ("'%s'"):format(value) or is_tensor(value) and 'a tensor ' .. value.dtype or type(value)
    error(('policies.%s must return %s; it returned %s%s'):format(name, check[1], got, other ~= nil and ' and a ' .. type(other) or ''), 0)
  end
  return value, other
end
