/* Optimiser updates: one pass over weights, moments and gradients of all parameters, in memory order; and dynamic loss scaling. */
#include "accept.h"

static int64_t total_of(const ty_parameter *list, int64_t count) {
  int64_t total = 0;
  for (int64_t p = 0; p < count; p++) total += ty_numel(list[p].w);
  return total;
}
static real value_of(const ty_tensor *scalar, real otherwise) { return scalar ? *(const real *)scalar->data : otherwise; }

/* One region of threads for all parameters: most are too small to be worth one of their own. */
int ty_adam(const ty_parameter *list, int64_t count, ty_tensor *steps, const ty_tensor *scale, const ty_tensor *overflow,
            const ty_tensor *lr, double beta1, double beta2, double eps, double weight_decay, int decoupled) {
  TY_TRY(ty_accept_step("adam", list, count, 2, steps, scale, overflow, lr));
  if (value_of(overflow, 0) != 0) return 0;
  int64_t *taken = steps->data;
  for (int64_t p = 0; p < count; p++) taken[list[p].number]++;
  const double rate = *(const double *)lr->data;
  const real b1 = (real)beta1, b2 = (real)beta2, c1 = (real)(1 - beta1), c2 = (real)(1 - beta2), e = (real)eps;
  const real l2 = decoupled ? 0 : (real)weight_decay, shrink = decoupled ? (real)(1 - rate * weight_decay) : 1, unscale = 1 / value_of(scale, 1);
#pragma omp parallel if (total_of(list, count) >= TY_PARALLEL)
  for (int64_t p = 0; p < count; p++) {
    real *pw = list[p].w->data, *pm = list[p].m->data, *pv = list[p].v->data;
    const real *pg = list[p].g->data;
    int64_t n = ty_numel(list[p].w);
    double step = (double)taken[list[p].number];
    const real size = (real)(rate / (1 - pow(beta1, step))), root = (real)(1 / sqrt(1 - pow(beta2, step)));
#pragma omp for simd schedule(static) nowait
    for (int64_t i = 0; i < n; i++) {
      real gradient = pg[i] * unscale + l2 * pw[i];
      real first = b1 * pm[i] + c1 * gradient, second = b2 * pv[i] + c2 * gradient * gradient;
      pm[i] = first;
      pv[i] = second;
      pw[i] = shrink * pw[i] - size * first / (R(sqrt)(second) * root + e);
    }
  }
  return 0;
}

int ty_sgd(const ty_parameter *list, int64_t count, ty_tensor *steps, const ty_tensor *scale, const ty_tensor *overflow,
           const ty_tensor *lr, double momentum, double weight_decay) {
  TY_TRY(ty_accept_step("sgd", list, count, momentum != 0, steps, scale, overflow, lr));
  if (value_of(overflow, 0) != 0) return 0;
  int64_t *taken = steps->data;
  for (int64_t p = 0; p < count; p++) taken[list[p].number]++;
  const real rate = (real)*(const double *)lr->data, decay = (real)weight_decay, keep = (real)momentum, unscale = 1 / value_of(scale, 1);
#pragma omp parallel if (total_of(list, count) >= TY_PARALLEL)
  for (int64_t p = 0; p < count; p++) {
    real *pw = list[p].w->data, *pv = momentum != 0 ? list[p].m->data : NULL;
    const real *pg = list[p].g->data;
    int64_t n = ty_numel(list[p].w);
#pragma omp for schedule(static) nowait
    for (int64_t i = 0; i < n; i++) {
      real step = pg[i] * unscale + decay * pw[i];
      if (pv) step = pv[i] = keep * pv[i] + step;
      pw[i] -= rate * step;
    }
  }
  return 0;
}

int ty_find_overflow(ty_tensor *overflow, const ty_parameter *list, int64_t count) {
  TY_TRY(ty_accept_overflow(overflow, list, count));
  int found = 0;
#pragma omp parallel reduction(| : found) if (total_of(list, count) >= TY_PARALLEL)
  for (int64_t p = 0; p < count; p++) {
    const real *pg = list[p].g->data;
    int64_t n = ty_numel(list[p].g);
#pragma omp for simd schedule(static) nowait
    for (int64_t i = 0; i < n; i++) found |= !(pg[i] - pg[i] == 0);
  }
  *(real *)overflow->data = (real)found;
  return 0;
}

int ty_update_scale(ty_tensor *scale, ty_tensor *counts, const ty_tensor *overflow, double growth, double backoff, int64_t interval) {
  TY_TRY(ty_accept_update_scale(scale, counts, overflow));
  int64_t *count = counts->data;
  real *s = scale->data;
  if (value_of(overflow, 0) != 0) {
    *s *= (real)backoff;
    count[0] = 0;
    count[1]++;
    count[2]++;
    return 0;
  }
  count[1] = 0;
  if (++count[0] < interval) return 0;
  real larger = *s * (real)growth;
  if (larger - larger == 0) *s = larger;
  count[0] = 0;
  return 0;
}
