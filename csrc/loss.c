/* Cross entropy with integer targets, and of a row's similarities with its partner as the target. */
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

/* Gives losses, of rows, back. */
static void put_mean(ty_tensor *loss, double *losses, int64_t rows) {
  double total = 0;
  for (int64_t r = 0; r < rows; r++) total += losses[r];
  ty_free(losses, rows * 8);
  *(real *)loss->data = (real)(total / (double)rows);
}

int ty_cross_entropy(ty_tensor *loss, ty_tensor *p, const ty_tensor *x, const ty_tensor *target) {
  TY_TRY(ty_accept_cross_entropy(loss, p, x, target));
  TY_TRY(check_targets("cross_entropy", p, target));
  int64_t rows = x->shape[0], n = x->shape[1];
  const int64_t *t = target->data;
  double *losses = ty_alloc(rows * 8);
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
  put_mean(loss, losses, rows);
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

/* ---- pairs ---- */

static inline real raised(real v, real least) { return v < least ? least : v; }

int ty_pair_cross_entropy(ty_tensor *loss, ty_tensor *lse, const ty_tensor *s, double temperature, double floor) {
  const char *op = "pair_cross_entropy";
  TY_TRY(ty_accept_pair_cross_entropy(op, NULL, loss, lse, s, temperature));
  const int64_t rows = s->shape[0];
  const real least = (real)floor, scale = (real)(1 / temperature);
  double *losses = ty_alloc(rows * 8);
  if (!losses) return ty_fail("%s: out of memory for %lld bytes", op, (long long)rows * 8);
#pragma omp parallel for schedule(static) if (rows * rows >= TY_PARALLEL)
  for (int64_t r = 0; r < rows; r++) {
    if (ty_is_unwanted()) continue;
    const real *in = (const real *)s->data + r * rows;
    const int64_t ends[3] = {0, r, rows}; /* all columns but r: [0, r) and [r + 1, rows) */
    real top = -INFINITY, sum = 0;
    for (int half = 0; half < 2; half++)
#pragma omp simd reduction(max : top)
      for (int64_t j = ends[half] + half; j < ends[half + 1]; j++) top = in[j] > top ? in[j] : top;
    top = raised(top, least) * scale;
    for (int half = 0; half < 2; half++)
#pragma omp simd reduction(+ : sum)
      for (int64_t j = ends[half] + half; j < ends[half + 1]; j++) sum += fast_exp(raised(in[j], least) * scale - top);
    const double log_sum = log((double)sum);
    losses[r] = log_sum - ((double)raised(in[r ^ 1], least) * scale - top);
    ((real *)lse->data)[r] = (real)(log_sum + top);
  }
  put_mean(loss, losses, rows);
  return 0;
}

int ty_pair_cross_entropy_back(ty_tensor *ds, const ty_tensor *dloss, const ty_tensor *lse, const ty_tensor *s, double temperature, double floor) {
  TY_TRY(ty_accept_pair_cross_entropy("pair_cross_entropy backward", ds, dloss, lse, s, temperature));
  const int64_t rows = s->shape[0];
  const real least = (real)floor, scale = (real)(1 / temperature), share = *(const real *)dloss->data * scale / (real)rows;
#pragma omp parallel for schedule(static) if (rows * rows >= TY_PARALLEL)
  for (int64_t r = 0; r < rows; r++) {
    if (ty_is_unwanted()) continue;
    const real *in = (const real *)s->data + r * rows, of_row = ((const real *)lse->data)[r];
    real *out = (real *)ds->data + r * rows;
#pragma omp simd
    for (int64_t j = 0; j < rows; j++) out[j] = in[j] >= least ? fast_exp(in[j] * scale - of_row) * share : 0;
    out[r] = 0;
    if (in[r ^ 1] >= least) out[r ^ 1] -= share;
  }
  return 0;
}
