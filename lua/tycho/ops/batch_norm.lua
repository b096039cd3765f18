-- batch_norm(x, weight, bias, residual, options): normalises each channel of x (N,C,H,W) or (N,C), scales, shifts, adds residual
-- [opt], then ReLU where options.relu. options: {running_mean=, running_var=, training=, momentum=0.1, eps=1e-5, relu=false}.
-- Training uses the batch's (biased) statistics and moves the running ones (unbiased variance); otherwise the running ones are used.
local tensor = require 'tycho.tensor'
local lib = require 'tycho.lib'
local op = require 'tycho.op'
local check_options = require 'tycho.options'

local known = { running_mean = true, running_var = true, training = true, momentum = true, eps = true, relu = true }

local function arranged(x) return x.ndim == 4 and tensor.image(x) or tensor.dense(x) end

return {
  inputs = { 'x', 'weight', 'bias', 'residual?' },
  forward = function(ctx, x, weight, bias, residual, options)
    op.check_real('batch_norm', x)
    options = check_options('batch_norm', options, known)
    if x.ndim ~= 4 and x.ndim ~= 2 then lib.raise('batch_norm: x must be (N, C, H, W) or (N, C), got ' .. tensor.shape_text(x)) end
    x, weight, bias = arranged(x), tensor.dense(weight), tensor.dense(bias)
    residual = residual and arranged(residual:to(x.dtype))
    local eps, relu = options.eps or 1e-5, options.relu and 1 or 0
    local running_mean, running_var = options.running_mean, options.running_var
    local channels = x:size(1)
    local y = tensor.empty_like(x)
    local mean, rstd
    if options.training then
      mean = ctx:own(tensor.empty({ channels }, weight.dtype, x.device))
      rstd = ctx:own(tensor.empty({ channels }, weight.dtype, x.device))
      lib.check(y.lib.ty_batch_norm(y.c, mean.c, rstd.c, running_mean and running_mean.c, running_var and running_var.c, x.c, weight.c,
        bias.c, residual and residual.c, relu, options.momentum or 0.1, eps), y.lib)
    else
      if not (running_mean and running_var) then lib.raise('batch_norm: outside training running_mean and running_var are needed') end
      lib.check(y.lib.ty_batch_norm_eval(y.c, x.c, weight.c, bias.c, running_mean.c, running_var.c, residual and residual.c, relu, eps),
        y.lib)
      if ctx.grad then
        mean = running_mean
        rstd = ctx:own(((running_var + eps):sqrt()):reciprocal())
      end
    end
    if ctx.grad then
      ctx:save(x, residual and y or nil, weight, bias) -- without a residual the mask of the ReLU follows from x
      ctx.mean, ctx.rstd, ctx.relu, ctx.fixed, ctx.residual = mean, rstd, relu, options.training and 0 or 1, residual and true
    end
    return y
  end,
  backward = function(ctx, dy)
    local x, y, weight, bias = ctx:saved()
    dy = arranged(dy)
    local dx = tensor.empty_like(x)
    local dweight, dbias = tensor.empty_like(weight), tensor.empty_like(weight)
    local dresidual = ctx.residual and ctx.needs[4] and tensor.empty_like(x) or nil
    lib.check(dx.lib.ty_batch_norm_back(dx.c, dweight.c, dbias.c, dresidual and dresidual.c, dy.c, x.c, y and y.c, weight.c, bias.c,
      ctx.mean.c, ctx.rstd.c, ctx.relu, ctx.fixed), dx.lib)
    return dx, dweight, dbias, dresidual
  end,
  sample = function(g)
    return g:normal_tensor({ 3, 2, 3, 2 }, 'f64'), g:normal_tensor({ 2 }, 'f64'), g:normal_tensor({ 2 }, 'f64'),
      g:normal_tensor({ 3, 2, 3, 2 }, 'f64'), { training = true, relu = true }
  end,
}
