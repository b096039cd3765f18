-- batch_norm(x, weight, bias, residual, options): normalises each channel of x (N,C,H,W) or (N,C), scales, shifts, adds residual
-- [opt], then ReLU where options.relu. options: {running_mean=, running_var=, training=, momentum=0.1, eps=1e-5, relu=false, pool=}.
-- Training uses the batch's (biased) statistics and moves the running ones (unbiased variance); otherwise the running ones are used.
-- pool = {kernel, stride, padding}, without a residual: the result is max_pool2d of that; what is pooled takes no memory.
local tensor = require 'tycho.tensor'
local lib = require 'tycho.lib'
local op = require 'tycho.op'
local check_options = require 'tycho.options'
local windows = require 'tycho.windows'

local known = { running_mean = true, running_var = true, training = true, momentum = true, eps = true, relu = true, pool = true }

local function arranged(x) return x.ndim == 4 and tensor.image(x) or tensor.dense(x) end

-- What does not fit is told before the running statistics move.
local function check_shape(name, t, like)
  if tensor.same_shape(t, like) then return end
  lib.raise(('batch_norm: %s must have shape %s, got %s'):format(name, tensor.shape_text(like), tensor.shape_text(t)))
end

return {
  inputs = { 'x', 'weight', 'bias', 'residual?' },
  forward = function(ctx, x, weight, bias, residual, options)
    op.check_real('batch_norm', x)
    options = check_options('batch_norm', options, known)
    local eps, momentum = options.eps or 1e-5, options.momentum or 0.1
    op.check_number('batch_norm', eps, 'eps')
    op.check_number('batch_norm', momentum, 'momentum')
    if x.ndim ~= 4 and x.ndim ~= 2 then lib.raise('batch_norm: x must be (N, C, H, W) or (N, C), got ' .. tensor.shape_text(x)) end
    x, weight, bias = arranged(x), tensor.dense(weight), tensor.dense(bias)
    residual = residual and arranged(residual:to(x.dtype))
    local library, relu, pool = x.lib, options.relu and 1 or 0, options.pool
    local running_mean = op.check_tensor('batch_norm', options.running_mean, 'running_mean?')
    local running_var = op.check_tensor('batch_norm', options.running_var, 'running_var?')
    local function vector() return ctx:own(tensor.empty({ x:size(1) }, weight.dtype, x.device)) end
    local mean, rstd = running_mean, vector()
    check_shape('weight', weight, rstd)
    check_shape('bias', bias, rstd)
    if residual then check_shape('residual', residual, x) end
    local y
    if pool then
      if type(pool) ~= 'table' then lib.raise('batch_norm: expected pool = {kernel, stride, padding}, got ' .. tostring(pool)) end
      if residual then lib.raise('batch_norm: with a residual nothing can be pooled; leave pool out and call max_pool2d') end
      y = windows(ctx, x, unpack(pool, 1, 3))
    else
      y = tensor.empty_like(x)
    end
    if options.training then
      mean = vector()
      if running_mean then tensor.touch(running_mean, 'batch_norm') end
      if running_var then tensor.touch(running_var, 'batch_norm') end
      lib.check(library.ty_batch_norm_statistics(mean.c, rstd.c, running_mean and running_mean.c, running_var and running_var.c, x.c,
        momentum, eps), library)
    else
      if not (running_mean and running_var) then lib.raise('batch_norm: outside training running_mean and running_var are needed') end
      lib.check(library.ty_batch_norm_rstd(rstd.c, running_var.c, eps), library)
      if ctx.grad then mean = tensor.copy_into(vector(), running_mean) end -- theirs may have moved when backward runs
    end
    if pool then
      lib.check(library.ty_batch_norm_pool(y.c, ctx.index.c, x.c, mean.c, rstd.c, weight.c, bias.c, relu, ctx.kernel, ctx.stride, ctx.padding),
        library)
    else
      lib.check(library.ty_batch_norm(y.c, x.c, mean.c, rstd.c, weight.c, bias.c, residual and residual.c, relu), library)
    end
    if ctx.grad then
      ctx.adds = not pool
      ctx:save(x, residual and y or nil, weight, bias) -- without a residual the mask of the ReLU follows from x
      ctx.mean, ctx.rstd, ctx.relu, ctx.fixed, ctx.residual = mean, rstd, relu, options.training and 0 or 1, residual and true
    end
    return y
  end,
  backward = function(ctx, dy)
    local x, y, weight, bias = ctx:saved()
    dy = arranged(dy)
    local dx, library = tensor.empty_like(x), x.lib
    local dweight, dbias = tensor.empty_like(weight), tensor.empty_like(weight)
    if ctx.index then
      lib.check(library.ty_batch_norm_pool_back(dx.c, dweight.c, dbias.c, dy.c, ctx.index.c, x.c, weight.c, bias.c, ctx.mean.c, ctx.rstd.c,
        ctx.relu, ctx.fixed, ctx.kernel, ctx.stride, ctx.padding), library)
      return dx, dweight, dbias
    end
    local more = ctx.more and arranged(ctx.more)
    local dresidual = ctx.residual and ctx.needs[4] and tensor.empty_like(x) or nil
    lib.check(library.ty_batch_norm_back(dx.c, dweight.c, dbias.c, dresidual and dresidual.c, dy.c, more and more.c, x.c, y and y.c, weight.c, bias.c,
      ctx.mean.c, ctx.rstd.c, ctx.relu, ctx.fixed), library)
    return dx, dweight, dbias, dresidual
  end,
  sample = function(g)
    return g:normal_tensor({ 3, 2, 3, 2 }, 'f64'), g:normal_tensor({ 2 }, 'f64'), g:normal_tensor({ 2 }, 'f64'),
      g:normal_tensor({ 3, 2, 3, 2 }, 'f64'), { training = true, relu = true }
  end,
}
