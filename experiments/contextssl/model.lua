-- The ContextSSL model: encoder, GPT-style predictor, auxiliary predictor and online probes, with the reference's parameter names.
local tycho = require 'tycho'
local Module = require 'tycho.nn.Module'
local nn = tycho.nn

local M = {}

-- ---- predictor ----

local Transformer = Module.class()

function Transformer:init(layers, width, heads)
  self.h = nn.Sequential((function()
    local blocks = {}
    for i = 1, layers do blocks[i] = nn.TransformerBlock(width, heads) end
    return blocks
  end)())
  self.ln_f = nn.LayerNorm(width)
end

local Predictor = Module.class { scoped = true }

-- options: features (width of a feature), actions (width of an action, 6), projection_dim, n_embd, n_layer, n_head, block_size,
-- is_invariant (tokens carry no action), init_std (0.02 in the reference).
function Predictor:init(options)
  self.options = options
  local std = options.init_std or 0.02
  self._read_in = nn.Linear(options.features + (options.is_invariant and 0 or options.actions), options.n_embd)
  self._read_out = nn.Linear(options.n_embd, options.projection_dim)
  self.transformer = Transformer(options.n_layer, options.n_embd, options.n_head)
  -- GPT-2's initialisation: weights N(0, std), biases 0, projections that add to the residual stream scaled by depth.
  tycho.no_grad(function()
    for _, entry in ipairs(self:named_parameters()) do
      local name, p = entry[1], entry[2]
      if p.ndim == 2 then
        local scale = name:match('c_proj%.weight$') and 1 / math.sqrt(2 * options.n_layer) or 1
        p:copy_(nn.initialize.normal(p.shape, std * scale))
      elseif name:match('%.bias$') then
        p:zero_()
      end
    end
  end)
end

-- Tokens of pairs: rows 2k carry [f, r_k], rows 2k+1 carry [f, 0]. f (2B,E), r (B,6) -> (2B, E+6), or f itself when is_invariant.
function Predictor:tokens(f, r)
  if self.options.is_invariant then return f end
  local actions = tycho.stack({ r, tycho.zeros_like(r) }, 1):reshape { f:size(0), r:size(1) }
  return tycho.cat({ f, actions }, 1)
end

-- (S,T,width) -> outputs (S,T,projection_dim) and each layer's keys and values. masks: one uint8 (T,T) for every layer, or a list with one
-- per layer. memory: list of {k=,v=} per layer that every sequence sees, or nil.
function Predictor:sequences(tokens, masks, memory) return self:attend(self:project(tokens), masks, memory) end

-- The part of Predictor:sequences that depends on the tokens alone.
function Predictor:project(tokens)
  local x = self._read_in(tokens)
  return { x = x, qkv = self.transformer.h:at(0):project(x) }
end

-- The rest of it. The same projections serve any number of masks and memories.
function Predictor:attend(projected, masks, memory)
  local x, kv = projected.x, {}
  for i = 1, self.options.n_layer do
    local mask = type(masks) == 'table' and not tycho.is_tensor(masks) and masks[i] or masks
    mask = mask and mask:to(x.device)
    local block = self.transformer.h:at(i - 1)
    x, kv[i] = block:attend(x, i == 1 and projected.qkv or block:project(x), mask, memory and memory[i])
  end
  return self._read_out(self.transformer.ln_f(x)), kv
end

-- Cuts the 2B tokens into sequences of block_size; zero rows pad the end, after the encoder. Returns all rows, padded ones included.
function Predictor:padded(f, r, masks)
  local T = self.options.block_size
  local tokens = self:tokens(f, r)
  local rows = tokens:size(0)
  local missing = -rows % T
  if missing > 0 then tokens = tycho.cat { tokens, tycho.zeros({ missing, tokens:size(1) }, tokens.dtype, tokens.device) } end
  local y, kv = self:sequences(tokens:reshape { -1, T, tokens:size(1) }, masks)
  return y:reshape { rows + missing, y:size(2) }, kv
end

-- f (2B,E), r (B,6) -> predictions (2B, projection_dim).
function Predictor:forward(f, r, masks) return self:padded(f, r, masks):narrow(0, 0, f:size(0)) end

-- ---- the whole model ----

local function mlp(inputs, hidden, outputs)
  return nn.Sequential { nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs) }
end
M.mlp = mlp

M.ContextSSL = Module.class()
local ContextSSL = M.ContextSSL

local depths = { resnet18 = 18, resnet34 = 34, resnet50 = 50 }
M.ACTIONS = 6 -- relative quaternion (4), floor and light hue differences (2)

-- Raises what does not fit together in config.
function M.check(config)
  if not depths[config.backbone] then
    error(("backbone must be resnet18, resnet34 or resnet50, got '%s'"):format(tostring(config.backbone)), 0)
  end
  local features = (config.width or 64) * (config.backbone == 'resnet50' and 32 or 8)
  if config.projection_dim ~= features then
    error(('projection_dim=%s does not fit: there is no projector, so it must equal the encoder\'s width, %d'):format(
      tostring(config.projection_dim), features), 0)
  end
  if config.n_embd % config.n_head ~= 0 then error(('n_embd %d must be a multiple of n_head %d'):format(config.n_embd, config.n_head), 0) end
end

-- config: the keys of config.yml.
function ContextSSL:init(config)
  M.check(config)
  self.enc = nn.ResNet(depths[config.backbone], config.width or 64)
  local features = self.enc.features
  self.equiv_linear = config.equiv_eval == 'mlp' and mlp(features, 1024, M.ACTIONS) or nn.Linear(features, M.ACTIONS)
  self.predictor = Predictor {
    features = features, actions = M.ACTIONS, projection_dim = config.projection_dim, n_embd = config.n_embd, n_layer = config.n_layer,
    n_head = config.n_head, block_size = config.block_size, is_invariant = config.is_invariant, init_std = config.init_std,
  }
  self.aug_predictor = mlp(features, 1024, M.ACTIONS)
  self.rel_aug_predictor = mlp(2 * features, 1024, M.ACTIONS)
  local gain = config.aug_init_gain or 1
  if gain ~= 1 then tycho.no_grad(function() self.aug_predictor:at(0).weight:mul_(gain) end) end
end

M.Predictor = Predictor

-- Linear classifiers on features and on predictions, trained beside the model on detached inputs.
M.OnlineProbe = Module.class()
function M.OnlineProbe:init(features, projection, classes)
  self.online_linear_probe_feat = nn.Linear(features, classes)
  self.online_linear_probe_pred = nn.Linear(projection, classes)
end
-- Class logits of features f and of predictions p.
function M.OnlineProbe:forward(f, p)
  return self.online_linear_probe_feat(f:detach()), self.online_linear_probe_pred(p:detach())
end

return M
