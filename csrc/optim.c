/* Optimiser updates: one pass over weights, moments and gradient. */
#include "accept.h"

int ty_adam(ty_tensor *w, ty_tensor *m, ty_tensor *v, const ty_tensor *g, double lr, double beta1, double beta2, double eps,
            double weight_decay, int decoupled, int64_t step) {
  TY_TRY(ty_accept_adam(w, m, v, g, step));
  real *pw = w->data, *pm = m->data, *pv = v->data;
  const real *pg = g->data;
  int64_t n = ty_numel(w);
  const real b1 = (real)beta1, b2 = (real)beta2, c1 = (real)(1 - beta1), c2 = (real)(1 - beta2);
  const real size = (real)(lr / (1 - pow(beta1, (double)step))), root = (real)(1 / sqrt(1 - pow(beta2, (double)step))), e = (real)eps;
  const real l2 = decoupled ? 0 : (real)weight_decay, shrink = decoupled ? (real)(1 - lr * weight_decay) : 1;
#pragma omp parallel for simd schedule(static) if (n >= TY_PARALLEL)
  for (int64_t i = 0; i < n; i++) {
    real gradient = pg[i] + l2 * pw[i];
    real first = b1 * pm[i] + c1 * gradient, second = b2 * pv[i] + c2 * gradient * gradient;
    pm[i] = first;
    pv[i] = second;
    pw[i] = shrink * pw[i] - size * first / (R(sqrt)(second) * root + e);
  }
  return 0;
}

int ty_sgd(ty_tensor *w, ty_tensor *velocity, const ty_tensor *g, double lr, double momentum, double weight_decay, int first) {
  TY_TRY(ty_accept_sgd(w, velocity, g, momentum));
  real *pw = w->data, *pv = momentum != 0 ? velocity->data : NULL;
  const real *pg = g->data;
  int64_t n = ty_numel(w);
  const real rate = (real)lr, decay = (real)weight_decay, keep = (real)momentum;
  if (pv && first) memset(pv, 0, (size_t)n * sizeof(real));
#pragma omp parallel for schedule(static) if (n >= TY_PARALLEL)
  for (int64_t i = 0; i < n; i++) {
    real step = pg[i] + decay * pw[i];
    if (pv) step = pv[i] = keep * pv[i] + step;
    pw[i] -= rate * step;
  }
  return 0;
}
