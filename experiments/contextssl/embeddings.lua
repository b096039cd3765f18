-- What the evaluations read of a frozen model: for every image its state, its features and its embedding behind each context. All of it is a
-- function of the image, the mode and the context length, so it is computed once, in one pass over the images with one memory that all queries
-- share, and kept on disk for the next evaluation: below a folder whose name is the hash of the weights, the settings and the data.
--
-- A piece is an array with a row for every image of a split, in the order object * views + view:
--   states (N,6)    quaternion and hues                   zplus mode c (N,D)   embedding of the image, without an action
--   features (N,E)  of the encoder                        zr mode c (N,D)      embedding of the image with the action to its partner
--   ranks mode c (N)  rank of view e among the views of its object, for view 0 with the action to e
-- A piece grows by parts of whole objects; after an interruption the finished parts are used. Memory holds one part at a time.
local lfs = require 'lfs'
local tycho = require 'tycho'
local file = require 'tycho.io.file'
local hash = require 'tycho.hash'
local json = require 'tycho.io.json'
local parts = require 'tycho.io.parts'
local progress = require 'tycho.train.progress'
local run_directory = require 'tycho.train.run'
local context = require 'experiments.contextssl.context'
local environments = require 'experiments.contextssl.environments'
local ranking = require 'experiments.contextssl.ranking'
local view_pairs = require 'experiments.contextssl.view_pairs'

local M = {}
local FORMAT = 1        -- of the cache; another number leaves older ones unread
local PART = 512        -- images of a part, or one object's
local ENCODED = 64      -- images that pass the encoder at a time
local PARTNERS = 210    -- stream of the seed

local Store = {}
Store.__index = Store

-- ---- the key ----

local function fingerprint(dataset)
  if dataset.fingerprint then return dataset:fingerprint() end
  local lines = { dataset.views }
  for i, object in ipairs(dataset.objects) do
    for view = 0, dataset.views - 1 do
      lines[#lines + 1] = lfs.attributes(('%s%s/image_%d.jpg'):format(dataset.root, object, view), 'size')
    end
    lines[#lines + 1] = object .. ' ' .. dataset.labels[i]
  end
  return hash(table.concat(lines, '\n'))
end

local function hash_of_weights(model)
  local lines = {}
  for i, entry in ipairs(model:state_dict()) do lines[i] = entry[1] .. ' ' .. hash(entry[2]) end
  return hash(table.concat(lines, '\n'))
end

-- Everything that the numbers follow from, as text. The weights' shapes say the other settings of the model.
local function describe(model, datasets, config)
  return json.encode({
    format = FORMAT, tycho = tycho.version, weights = hash_of_weights(model),
    data = { train = fingerprint(datasets.train), val = fingerprint(datasets.val) },
    settings = { resolution = config.resolution, image_mean = config.image_mean, image_std = config.image_std, n_head = config.n_head,
      block_size = config.block_size, cache_type = config.cache_type, context_seed = config.context_seed, winograd = config.winograd },
  }, { indent = true }) .. '\n'
end

-- The pieces of a model. datasets: {train =, val =}; config: what describe reads, seed (of the partners) and cache_dir or out.
function M.open(model, datasets, config)
  local text = describe(model, datasets, config)
  local folder = ('%s/%s'):format(config.cache_dir or config.out .. '/cache', hash(text))
  run_directory.make_directories(folder)
  local about = folder .. '/about.json'
  local known = io.open(about, 'rb')
  if not known then
    file.write(about, function(out) out:write(text) end)
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
  if kind == 'zr' then words[#words + 1] = 'seed' .. self.config.seed end
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

local function memory_of(self, piece) return piece.c > 0 and context.cut(self.memories[piece.mode], piece.c) or nil end

-- By kind: rows first .. first + count - 1 of a piece. of(kind, mode, c): the same rows of another piece of the split.
local compute = {}

function compute.states(self, piece, first, count)
  local dataset, rows = self.datasets[piece.split], {}
  for i = first, first + count - 1 do rows[#rows + 1] = dataset:state(math.floor(i / dataset.views), i % dataset.views) end
  return tycho.tensor(rows)
end

function compute.features(self, piece, first, count)
  local pieces = {}
  for start = first, first + count - 1, ENCODED do
    local items = {}
    for i = start, math.min(start + ENCODED, first + count) - 1 do items[#items + 1] = i end
    pieces[#pieces + 1] = tycho.scope(function() return self.model.enc(self.datasets[piece.split]:images(items)) end)
  end
  return tycho.cat(pieces)
end

function compute.zplus(self, piece, _, _, of)
  return context.embed(self.model, of 'features', nil, memory_of(self, piece))
end

-- Numbers first .. first + count - 1 as int64.
local function range(first, count)
  local rows = tycho.empty({ count }, 'i64')
  for i = 0, count - 1 do rows:ptr()[i] = first + i end
  return rows
end

-- Rows of a piece relative to its part; partners never leave their object, so they are in the same part.
function compute.zr(self, piece, first, count, of)
  local partner = self:partners(piece.split):narrow(0, first, count):clone()
  for i = 0, count - 1 do partner:ptr()[i] = partner:ptr()[i] - first end
  local actions = view_pairs.actions(of 'states', range(0, count), partner)
  return context.embed(self.model, of 'features', environments.restrict(actions, piece.mode), memory_of(self, piece))
end

function compute.ranks(self, piece, _, count, of)
  local views, rows = self.datasets[piece.split].views, range(0, count)
  local source = tycho.empty({ count }, 'i64')
  for i = 0, count - 1 do source:ptr()[i] = i - i % views end
  local actions = environments.restrict(view_pairs.actions(of 'states', source, rows), piece.mode)
  local zr = context.embed(self.model, of('features'):index_select(source), actions, memory_of(self, piece))
  local ranks = ranking.ranks(zr, of('zplus', piece.mode, piece.c), rows, views, self.config.eval_normalize)
  return tycho.tensor(ranks, 'i32')
end

local function part_value(self, piece, i, values)
  if not values[piece.name] then
    if piece.parts.done[i] then
      values[piece.name] = piece.parts:read(i)
    else
      local first, count = piece.parts:range(i)
      local function of(kind, mode, c) return part_value(self, self:piece(kind, piece.split, mode, c), i, values) end
      values[piece.name] = compute[piece.kind](self, piece, first, count, of)
      piece.parts:write(i, values[piece.name])
    end
  end
  return values[piece.name]
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
  local line, done = progress('embeddings', total), 0
  tycho.on_interrupt('flag')
  local finished = self.model:evaluating(function()
    encode_contexts(self, missing)
    for _, split in ipairs { 'train', 'val' } do
      local pieces = by_split[split] or {}
      for i = 1, pieces[1] and pieces[1].parts.count or 0 do
        local go_on = tycho.scope(function()
          local values = {}
          for _, piece in ipairs(pieces) do
            if tycho.interrupted() then return false end
            if not piece.parts.done[i] then
              part_value(self, piece, i, values)
              done = done + 1
              line:update(done, piece.name)
            end
          end
          return true
        end)
        if not go_on then return false end
      end
    end
    return true
  end)
  tycho.on_interrupt(nil)
  line:finish(finished and ('embedded in %.0f s'):format(line:elapsed())
    or ('stopped; what is computed stays in %s, the same command goes on'):format(self.folder))
  return finished
end

return M
