-- mse(x, target): mean of the squared difference over all elements.
return {
  compose = function(x, target) return (x - target):square():mean() end,
  sample = function(g) return g:normal_tensor({ 3, 4 }, 'f64'), g:normal_tensor({ 3, 4 }, 'f64') end,
}
