-- cosine_similarity(a, b, eps): over the last dim; a / max(|a|, eps) . b / max(|b|, eps), eps 1e-8 as PyTorch.
return {
  compose = function(a, b, eps)
    eps = eps or 1e-8
    return (a:normalize(eps) * b:normalize(eps)):sum(-1)
  end,
  sample = function(g) return g:normal_tensor({ 3, 4 }, 'f64'), g:normal_tensor({ 3, 4 }, 'f64') end,
}
