-- sum(x, dims, keepdim): over one dim, a list of dims, or (nil) all of them. The sum of an f16 or bf16 x is f32.
local tensor = require 'tycho.tensor'
local op = require 'tycho.op'
local lib = require 'tycho.lib'

local M = {
  inputs = { 'x' },
  forward = function(ctx, x, dims, keepdim)
    op.check_real('sum', x)
    local reduced, kept, full = {}, {}, {}
    if type(dims) == 'number' then dims = { dims } end
    if dims ~= nil and type(dims) ~= 'table' then lib.raise('sum: expected a dim or a list of dims, got ' .. type(dims)) end
    for _, dim in ipairs(dims or {}) do reduced[tensor.dim(x, dim, 'sum')] = true end
    for i, size in ipairs(x.shape) do
      local gone = not dims or reduced[i - 1]
      full[i] = gone and 1 or size
      if not gone then kept[#kept + 1] = size elseif keepdim then kept[#kept + 1] = 1 end
    end
    local y = tensor.empty(full, x.type.short and 'f32' or x.dtype, x.device)
    lib.check(y.lib.ty_sum(y.c, x.c), y.lib)
    ctx.full, ctx.shape = full, x.shape
    return y:reshape(kept)
  end,
  backward = function(ctx, dy) return dy:reshape(ctx.full):expand(ctx.shape) end,
  sample = function(g) return g:normal_tensor({ 2, 3, 4 }, 'f64'), { 0, -1 } end,
}
return M
