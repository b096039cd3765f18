/* Cross entropy with integer targets. */
#include "accept.h"
#include "fast_math.h"

static int check_targets(const char *op, const ty_tensor *p, const ty_tensor *target) {
  const int64_t *t = target->data;
  for (int64_t r = 0; r < p->shape[0]; r++)
    if (t[r] < 0 || t[r] >= p->shape[1])
      return ty_fail("%s: target %lld of row %lld is out of range 0..%lld (classes count from 0)", op, (long long)t[r], (long long)r,
                     (long long)p->shape[1] - 1);
  return 0;
}

int ty_cross_entropy(ty_tensor *loss, ty_tensor *p, const ty_tensor *x, const ty_tensor *target) {
  TY_TRY(ty_accept_cross_entropy(loss, p, x, target));
  TY_TRY(check_targets("cross_entropy", p, target));
  int64_t rows = x->shape[0], n = x->shape[1];
  const int64_t *t = target->data;
  double *losses = ty_alloc(rows * 8), total = 0;
  if (!losses) return ty_fail("cross_entropy: out of memory for %lld bytes", (long long)rows * 8);
#pragma omp parallel for schedule(static) if (rows * n >= TY_PARALLEL)
  for (int64_t r = 0; r < rows; r++) {
    if (ty_is_unwanted()) continue;
    const real *in = (const real *)x->data + r * n;
    real *out = (real *)p->data + r * n, top = in[0], sum = 0;
#pragma omp simd reduction(max : top)
    for (int64_t j = 0; j < n; j++) top = in[j] > top ? in[j] : top;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n; j++) {
      out[j] = fast_exp(in[j] - top);
      sum += out[j];
    }
    losses[r] = log((double)sum) - ((double)in[t[r]] - top);
    real scale = 1 / sum;
#pragma omp simd
    for (int64_t j = 0; j < n; j++) out[j] *= scale;
  }
  for (int64_t r = 0; r < rows; r++) total += losses[r];
  ty_free(losses, rows * 8);
  *(real *)loss->data = (real)(total / (double)rows);
  return 0;
}

int ty_cross_entropy_back(ty_tensor *dx, const ty_tensor *dloss, const ty_tensor *p, const ty_tensor *target) {
  TY_TRY(ty_accept_cross_entropy_back(dx, dloss, p, target));
  TY_TRY(check_targets("cross_entropy backward", p, target));
  int64_t rows = p->shape[0], n = p->shape[1];
  real scale = *(const real *)dloss->data / (real)rows;
  const int64_t *t = target->data;
#pragma omp parallel for schedule(static) if (rows * n >= TY_PARALLEL)
  for (int64_t r = 0; r < rows; r++) {
    if (ty_is_unwanted()) continue;
    const real *in = (const real *)p->data + r * n;
    real *out = (real *)dx->data + r * n;
    for (int64_t j = 0; j < n; j++) out[j] = in[j] * scale;
    out[t[r]] -= scale;
  }
  return 0;
}
