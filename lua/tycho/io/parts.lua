-- A large array on disk that is computed in parts: PATH.npy, and beside it PATH.parts with the hash of every part that is there. A part counts
-- only when its bytes have that hash, so whatever an interruption, a full disk or a fault of the disk leaves behind is computed again and
-- nothing else. Until the last part is there the array is called PATH.npy.partial. One process at a time may write.
local ffi = require 'ffi'
local lfs = require 'lfs'
local file = require 'tycho.io.file'
local hash = require 'tycho.hash'
local npy = require 'tycho.io.npy'
local tensor = require 'tycho.tensor'
local dtypes = require 'tycho.dtype'

local Parts = {}
Parts.__index = Parts
local M = {}

-- First row and number of rows of part i; parts count from 1.
function Parts:range(i)
  local first = (i - 1) * self.rows
  return first, math.min(self.rows, self.shape[1] - first)
end

local function is_there(path) return lfs.attributes(path, 'mode') == 'file' end

-- Reads the list of parts; nil when it is none of this array.
local function listed(self)
  local title, lines = (file.read(self.path .. '.parts') or ''):match '^([^\n]*)\n(.*)$'
  if title ~= self.title then return nil end
  local hashes = {}
  for line in lines:gmatch '[^\n]+' do
    local i, digits = line:match('^(%d+) (%x+)$')
    if i and #digits == 16 then hashes[tonumber(i)] = digits end
  end
  return hashes
end

local function view(self, storage, i)
  local first, count = self:range(i)
  local shape = { unpack(self.shape) }
  shape[1] = count
  return tensor.from_storage(storage, self.offset + first * self.row_bytes, shape, self.dtype)
end

-- Marks the listed parts whose bytes have their hash.
local function verify(self, path)
  local hashes = listed(self)
  if not hashes or lfs.attributes(path, 'size') ~= self.offset + self.shape[1] * self.row_bytes then return end
  local storage = file.map(path)
  for i, digits in pairs(hashes) do
    if i >= 1 and i <= self.count then
      if hash(view(self, storage, i)) == digits then self.done[i], self.left = true, self.left - 1 else self.damaged = self.damaged + 1 end
    end
  end
  storage:free()
end

-- The array PATH.npy of this shape and dtype (default f32), `rows` rows to a part. Field left: parts that are not there; damaged: parts that are
-- listed but have other bytes. Writes nothing.
function M.open(path, shape, rows, dtype)
  dtype = dtype or 'f32'
  local header = npy.header(dtype, shape)
  local size, row = dtypes[dtype].size, 1
  for i = 2, #shape do row = row * shape[i] end
  local self = setmetatable({ path = path, shape = shape, dtype = dtype, rows = rows, row_bytes = row * size, header = header, offset = #header,
    count = math.ceil(shape[1] / rows), done = {}, damaged = 0 }, Parts)
  self.title = ('%s %s in parts of %d rows'):format(dtype, table.concat(shape, 'x'), rows)
  self.left = self.count
  for _, name in ipairs { path .. '.npy', path .. '.npy.partial' } do
    if is_there(name) then
      self.file = name
      verify(self, name)
      break
    end
  end
  return self
end

-- Bytes of the parts that are not there yet.
function Parts:missing_bytes()
  local rows = 0
  for i = 1, self.count do
    if not self.done[i] then rows = rows + select(2, self:range(i)) end
  end
  return rows * self.row_bytes
end

local function fail(self, why) error(('cannot write %s: %s'):format(self.file, tostring(why):gsub('^.*: ', '')), 0) end

local function try(self, ok, why) return ok or fail(self, why) end

-- Opens the array for writing, with a file of the full size.
local function begin(self)
  local partial = self.path .. '.npy.partial'
  if self.file and self.file ~= partial then try(self, os.rename(self.file, partial)) end
  local usable = self.left < self.count
  self.file = partial
  self.out = try(self, io.open(partial, usable and 'r+b' or 'w+b'))
  if not usable then
    try(self, self.out:write(self.header))
    if self.shape[1] * self.row_bytes > 0 then
      try(self, self.out:seek('set', self.offset + self.shape[1] * self.row_bytes - 1))
      try(self, self.out:write('\0'))
    end
    try(self, self.out:flush())
  end
  local lines = { self.title }
  local old = usable and listed(self) or {}
  for i in pairs(self.done) do lines[#lines + 1] = ('%d %s'):format(i, old[i]) end
  file.write(self.path .. '.parts', table.concat(lines, '\n') .. '\n')
end

-- Stores part i. With the last one the array is complete and gets its name.
function Parts:write(i, x)
  local first, count = self:range(i)
  if x.dtype ~= self.dtype or x:size(0) ~= count then
    error(('%s: part %d must be %s with %d rows, got %s %s'):format(self.path, i, self.dtype, count, x.dtype, tensor.shape_text(x)), 0)
  end
  if not self.out then begin(self) end
  local dense = tensor.dense(x:cpu())
  try(self, self.out:seek('set', self.offset + first * self.row_bytes))
  try(self, self.out:write(ffi.string(dense:ptr(), count * self.row_bytes)))
  try(self, self.out:flush())
  local list = try(self, io.open(self.path .. '.parts', 'a'))
  local ok, why = list:write(('%d %s\n'):format(i, hash(dense)))
  list:close()
  try(self, ok, why)
  self.done[i], self.left = true, self.left - 1
  if self.left == 0 then
    self.out:close()
    self.out = nil
    try(self, os.rename(self.file, self.path .. '.npy'))
    self.file = self.path .. '.npy'
  end
end

-- A copy of part i, which must be there.
function Parts:read(i)
  local first, count = self:range(i)
  local handle, why = io.open(self.file, 'rb')
  if not handle then error('cannot read ' .. why, 0) end
  handle:seek('set', self.offset + first * self.row_bytes)
  local bytes = handle:read(count * self.row_bytes) or ''
  handle:close()
  if #bytes < count * self.row_bytes then error(('cannot read %s: part %d is cut off'):format(self.file, i), 0) end
  local shape = { unpack(self.shape) }
  shape[1] = count
  local t = tensor.empty(shape, self.dtype)
  ffi.copy(t:ptr(), bytes, #bytes)
  return t
end

-- The whole array, mapped: pages are read when touched.
function Parts:tensor()
  if self.left > 0 then error(('%s.npy: %d of %d parts are missing'):format(self.path, self.left, self.count), 0) end
  if self.count == 0 then return tensor.empty(self.shape, self.dtype) end
  return tensor.from_storage(file.map(self.file), self.offset, self.shape, self.dtype)
end

return M
