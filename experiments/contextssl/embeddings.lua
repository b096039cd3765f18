-- What the evaluations read of a frozen model: for every image its state, its features and its embedding behind each context. All of it is a
-- function of the image, the mode and the context length, so it is computed once, in one pass over the images with one memory that all queries
-- share, and kept on disk for the next evaluation: below a folder whose name is the hash of the weights, the settings and the data.
--
-- A piece is an array with a row for every image of a split, in the order object * views + view:
--   states (N,6)    quaternion and hues                   zplus mode c (N,D)   embedding of the image, without an action
--   features (N,E)  of the encoder                        zr mode c (N,D)      embedding of the image with the action to its partner
--   ranks mode c (N)  rank of view e among the views of its object, for view 0 with the action to e
-- A piece grows by parts of whole objects; after an interruption the finished parts are used. Memory holds one part at a time.
local tycho = require 'tycho'
local file = require 'tycho.io.file'
local hash = require 'tycho.hash'
local json = require 'tycho.io.json'
local parts = require 'tycho.io.parts'
local progress = require 'tycho.train.progress'
local context = require 'experiments.contextssl.context'
local environments = require 'experiments.contextssl.environments'
local policies = require 'experiments.contextssl.policies'
local ranking = require 'experiments.contextssl.ranking'
local view_pairs = require 'experiments.contextssl.view_pairs'

local M = {}
local FORMAT = 1        -- of the cache; another number leaves older ones unread
local PART = 2048       -- images of a part, or one object's; as many rows as matrix products need to run at full speed
local ENCODED = 64      -- images that pass the encoder at a time
local PARTNERS = 210    -- stream of the seed

local Store = {}
Store.__index = Store

-- ---- the key ----

local function hash_of_weights(model)
  local lines = {}
  for i, entry in ipairs(model:state_dict()) do lines[i] = entry[1] .. ' ' .. hash(entry[2]) end
  return hash(table.concat(lines, '\n'))
end

-- The hash of the file with a model policy of one's own, for the same weights give other numbers in another model; nil for the given one.
local function own_model()
  local source = debug.getinfo(policies.model, 'S').source
  if not source:match 'experiments/contextssl/policies%.lua$' then return hash(file.read(source:sub(2)) or source) end
end

-- Everything that the numbers follow from, as text. The weights' shapes say the other settings of the model.
local function describe(model, datasets, config)
  return json.encode({
    format = FORMAT, tycho = tycho.version, weights = hash_of_weights(model), model = own_model(),
    data = { train = datasets.train:fingerprint(), val = datasets.val:fingerprint() },
    settings = { resolution = config.resolution, image_mean = config.image_mean, image_std = config.image_std, n_head = config.n_head,
      block_size = config.block_size, cache_type = config.cache_type, context_seed = ('%.0f'):format(config.context_seed), exact = config.exact,
      tf32 = config.tf32 or nil },
  }, { indent = true }) .. '\n'
end

-- The pieces of a model. datasets: {train =, val =}; config: what describe reads, seed (of the partners) and cache_dir or out.
function M.open(model, datasets, config)
  local text = describe(model, datasets, config)
  local folder = ('%s/%s'):format(config.cache_dir or config.out .. '/cache', hash(text))
  file.make_folders(folder)
  local about = folder .. '/about.json'
  local known = io.open(about, 'rb')
  if not known then
    file.write(about, text)
  else
    local there = known:read('*a')
    known:close()
    if there ~= text then error(('%s is of other weights, settings or data than its name says; remove %s'):format(about, folder), 0) end
  end
  return setmetatable({ model = model, datasets = datasets, config = config, folder = folder, pieces = {}, memories = {}, partner = {} }, Store)
end

-- ---- pieces ----

-- kind, split, mode, c. A z+ without context is the same in all modes.
function Store:piece(kind, split, mode, c)
  local words = { kind }
  if c and not (kind == 'zplus' and c == 0) then words[2] = mode end
  if c then words[#words + 1] = 'c' .. c end
  words[#words + 1] = split
  if kind == 'zr' then words[#words + 1] = ('seed%.0f'):format(self.config.seed) end
  if kind == 'ranks' and not self.config.eval_normalize then words[#words + 1] = 'raw' end
  local name = table.concat(words, '_')
  if not self.pieces[name] then
    local dataset = self.datasets[split]
    local shape = { dataset:size() * dataset.views }
    if kind == 'states' then shape[2] = 6 elseif kind ~= 'ranks' then shape[2] = self.model.predictor.options.projection_dim end
    local rows = dataset.views * math.max(1, math.floor(PART / dataset.views))
    self.pieces[name] = { name = name, kind = kind, split = split, mode = mode, c = c,
      parts = parts.open(self.folder .. '/' .. name, shape, rows, kind == 'ranks' and 'i32' or 'f32') }
  end
  return self.pieces[name]
end

-- The whole piece, mapped.
function Store:get(...)
  local piece = self:piece(...)
  piece.tensor = piece.tensor or piece.parts:tensor()
  return piece.tensor
end

-- ---- computing ----

-- Partner of every image of a split (view_pairs.cycle).
function Store:partners(split)
  if not self.partner[split] then
    local dataset = self.datasets[split]
    self.partner[split] = tycho.keep(view_pairs.cycle(dataset:size(), dataset.views,
      tycho.generator(self.config.seed, PARTNERS + (split == 'val' and 1 or 0))))
  end
  return self.partner[split]
end

-- Encodes the memories of the modes that pieces need.
local function encode_contexts(self, pieces)
  local examples
  for _, piece in ipairs(pieces) do
    if piece.c and piece.c > 0 and not self.memories[piece.mode] then
      examples = examples or self.datasets[self.config.cache_type]:context(self.config.block_size / 2, self.config.context_seed)
      self.memories[piece.mode] = context.encode(self.model, examples, piece.mode)
    end
  end
end

local function memory_of(self, mode, c) return c > 0 and context.cut(self.memories[mode], c) or nil end

-- One part of a split in the making: `of` gives the values of pieces, computed and stored where they are missing, and of what several pieces are
-- made of.
local Part = {}
Part.__index = Part

local STOP = {} -- raised after Ctrl-C
local function check_interrupt()
  if tycho.interrupted() then error(STOP, 0) end
end

-- Numbers 0 .. count - 1 as int64.
local function range(count)
  local rows = tycho.empty({ count }, 'i64')
  for i = 0, count - 1 do rows:ptr()[i] = i end
  return rows
end

-- By kind: how the rows of a part come about.
local compute = {}

function compute.states(part)
  local rows = {}
  for i = part.first, part.first + part.count - 1 do rows[#rows + 1] = part.dataset:state(math.floor(i / part.views), i % part.views) end
  return tycho.tensor(rows)
end

function compute.features(part)
  local pieces, last = {}, part.first + part.count - 1
  for start = part.first, last, ENCODED do
    check_interrupt()
    local items = {}
    for i = start, math.min(start + ENCODED - 1, last) do items[#items + 1] = i end
    pieces[#pieces + 1] = tycho.scope(function() return part.store.model.enc(part.dataset:images(items)) end)
  end
  return tycho.cat(pieces)
end

function compute.zplus(part, mode, c) return context.attend(part.store.model, part:of 'query', memory_of(part.store, mode, c)) end
function compute.zr(part, mode, c) return context.attend(part.store.model, part:of('partner_query', mode), memory_of(part.store, mode, c)) end

function compute.ranks(part, mode, c)
  local zr = context.attend(part.store.model, part:of('view_query', mode), memory_of(part.store, mode, c))
  local zplus = part:of('zplus', mode, c):to(zr.device)
  return tycho.tensor(ranking.ranks(zr, zplus, range(part.count), part.views, part.store.config.eval_normalize), 'i32')
end

-- What is not stored: queries, projected once for all context lengths. Partners never leave their object, so they are in the same part.
local passing = {}

function passing.query(part) return context.project(part.store.model, part:of 'features') end

function passing.partner_query(part, mode)
  local partner = part.store:partners(part.split):narrow(0, part.first, part.count):clone()
  for i = 0, part.count - 1 do partner:ptr()[i] = partner:ptr()[i] - part.first end
  local actions = view_pairs.actions(part:of 'states', range(part.count), partner)
  return context.project(part.store.model, part:of 'features', environments.restrict(actions, mode))
end

-- View 0 with the action to each view of its object.
function passing.view_query(part, mode)
  local source = range(part.count)
  for i = 0, part.count - 1 do source:ptr()[i] = i - i % part.views end
  local actions = view_pairs.actions(part:of 'states', source, range(part.count))
  return context.project(part.store.model, part:of('features'):cpu():index_select(source), environments.restrict(actions, mode))
end

function Part:of(kind, mode, c)
  local key = table.concat({ kind, mode or '', c or '' }, ' ')
  if not self.values[key] then
    if passing[kind] then
      self.values[key] = passing[kind](self, mode)
    else
      self.values[key] = self:piece(self.store:piece(kind, self.split, mode, c))
    end
  end
  return self.values[key]
end

-- Rows of a piece.
function Part:piece(piece)
  if piece.parts.done[self.i] then return piece.parts:read(self.i) end
  check_interrupt()
  local values = compute[piece.kind](self, piece.mode, piece.c)
  piece.parts:write(self.i, values)
  return values
end

local function new_part(store, split, i, parts_of)
  local first, count = parts_of:range(i)
  return setmetatable({ store = store, split = split, dataset = store.datasets[split], views = store.datasets[split].views, i = i, first = first,
    count = count, values = {} }, Part)
end

-- ---- what is there, what is missing ----

local function megabytes(bytes) return bytes < 1e9 and ('%.0f MB'):format(bytes / 1e6) or ('%.1f GB'):format(bytes / 1e9) end

-- Tells the user.
function Store.say(text) print(text) end

-- Says what is there and raises when the disk cannot hold the rest.
local function announce(self, list, missing)
  for _, piece in ipairs(list) do
    if piece.parts.damaged > 0 then
      self.say(('%s/%s: %d parts are damaged and are computed again'):format(self.folder, piece.name, piece.parts.damaged))
    end
  end
  if #missing == 0 then
    self.say(('embeddings: all %d pieces are in %s'):format(#list, self.folder))
    return
  end
  local bytes = 0
  for _, piece in ipairs(missing) do bytes = bytes + piece.parts:missing_bytes() end
  local free = file.free_bytes(self.folder)
  if bytes > free then
    error(('%s: the embeddings need %s more, and %s are free; make room, or write cache_dir=FOLDER on another disk'):format(self.folder,
      megabytes(bytes), megabytes(free)), 0)
  end
  self.say(('embeddings: computing %d of %d pieces in %s: %s, %s are free'):format(#missing, #list, self.folder, megabytes(bytes), megabytes(free)))
end

-- Computes what is missing of a list of pieces, which must hold the pieces that others of it are computed from. Returns false after Ctrl-C.
function Store:compute(list)
  local missing, by_split, total = {}, {}, 0
  for _, piece in ipairs(list) do
    if piece.parts.left > 0 then
      missing[#missing + 1] = piece
      by_split[piece.split] = by_split[piece.split] or {}
      table.insert(by_split[piece.split], piece)
      total = total + piece.parts.left
    end
  end
  announce(self, list, missing)
  if total == 0 then return true end
  local lock = file.lock(self.folder .. '/lock')
  if not lock then error(('%s is in use: another process computes embeddings there; wait for it, or stop it'):format(self.folder), 0) end
  file.remove_leftovers(self.folder)
  local line, done = progress('embeddings', total), 0
  local function pass()
    encode_contexts(self, missing)
    for _, split in ipairs { 'train', 'val' } do
      local pieces = by_split[split] or {}
      for i = 1, pieces[1] and pieces[1].parts.count or 0 do
        tycho.scope(function()
          local part = new_part(self, split, i, pieces[1].parts)
          for _, piece in ipairs(pieces) do
            if not piece.parts.done[i] then
              part:of(piece.kind, piece.mode, piece.c)
              done = done + 1
              line:update(done, piece.name)
            end
          end
        end)
      end
    end
  end
  tycho.on_interrupt('flag')
  local ok, why = pcall(self.model.evaluating, self.model, pass)
  tycho.on_interrupt(nil)
  lock:close()
  if not ok and why ~= STOP then error(why, 0) end
  line:finish(ok and ('embedded in %.0f s'):format(line:elapsed())
    or ('stopped; what is computed stays in %s, the same command goes on'):format(self.folder))
  return ok
end

return M
