-- mean(x, dims, keepdim): over one dim, a list of dims, or (nil) all of them.
return {
  compose = function(x, dims, keepdim)
    local total = x:sum(dims, keepdim)
    return total * (total:numel() / x:numel())
  end,
  sample = function(g) return g:normal_tensor({ 2, 3, 4 }, 'f64'), 1 end,
}
