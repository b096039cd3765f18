-- cosine_similarity(a, b): over the last dim; a.b / sqrt(max(|a|^2 |b|^2, eps^2)), eps 1e-8 as PyTorch.
return {
  compose = function(a, b, eps)
    eps = eps or 1e-8
    local norms = a:square():sum(-1) * b:square():sum(-1)
    return (a * b):sum(-1) / norms:maximum(eps * eps):sqrt()
  end,
  sample = function(g) return g:normal_tensor({ 3, 4 }, 'f64'), g:normal_tensor({ 3, 4 }, 'f64') end,
}
