/* Optimiser updates: one pass over weights, moments and gradient. */
#include "internal.h"

/* All of one layout without gaps, so that memory order serves as index. */
static int check(const char *op, const ty_tensor *w, const ty_tensor *other, const char *name) {
  TY_TRY(ty_check_real(op, name, other));
  if (!ty_same_layout(w, other))
    return ty_fail("%s: %s %s must have the shape and memory order of w %s", op, name, ty_shape_text(other), ty_shape_text(w));
  return 0;
}
static int check_packed(const char *op, const ty_tensor *w) {
  TY_TRY(ty_check_real(op, "w", w));
  int64_t span = 1;
  for (int i = 0; i < w->ndim; i++) span += (w->shape[i] - 1) * w->stride[i];
  if (ty_numel(w) && span != ty_numel(w)) return ty_fail("%s: w of shape %s must have no gaps in memory", op, ty_shape_text(w));
  return 0;
}

int ty_adam(ty_tensor *w, ty_tensor *m, ty_tensor *v, const ty_tensor *g, double lr, double beta1, double beta2, double eps,
            double weight_decay, int decoupled, int64_t step) {
  TY_TRY(check_packed("adam", w));
  TY_TRY(check("adam", w, m, "m"));
  TY_TRY(check("adam", w, v, "v"));
  TY_TRY(check("adam", w, g, "g"));
  if (step < 1) return ty_fail("adam: step counts from 1, got %lld", (long long)step);
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
  TY_TRY(check_packed("sgd", w));
  TY_TRY(check("sgd", w, g, "g"));
  if (momentum != 0) {
    if (!velocity) return ty_fail("sgd: momentum %g needs a velocity", momentum);
    TY_TRY(check("sgd", w, velocity, "velocity"));
  }
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
