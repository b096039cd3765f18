-- transpose(x, a, b): dims a and b swapped. A view.
local tensor = require 'tycho.tensor'

local function swap(c, a, b)
  c.shape[a], c.shape[b] = c.shape[b], c.shape[a]
  c.stride[a], c.stride[b] = c.stride[b], c.stride[a]
end

return {
  inputs = { 'x' },
  forward = function(ctx, x, a, b)
    ctx.a, ctx.b = tensor.dim(x, a, 'transpose'), tensor.dim(x, b, 'transpose')
    return tensor.view_of(x, 0, swap, ctx.a, ctx.b)
  end,
  backward = function(ctx, dy) return dy:transpose(ctx.a, ctx.b) end,
  sample = function(g) return g:normal_tensor({ 2, 3, 4 }, 'f64'), 0, -1 end,
}
