/* Reductions: sums over any dims, and softmax, normalisation and maximum over the last one. Partial sums have fixed extents, so results
 * do not depend on the number of threads. */
#include "fast_math.h"
#include <stdlib.h>

enum { CHUNK = 4096, ROWS = 64 };

/* ---- sum ---- */

/* x as kept x reduced: strides of both groups of dims. */
typedef struct split { int kept, reduced; int64_t shape[2][TY_MAX_DIMS], stride[2][TY_MAX_DIMS], out[TY_MAX_DIMS]; } split;

static int64_t offset_of(int64_t index, int n, const int64_t *shape, const int64_t *stride) {
  int64_t offset = 0;
  for (int i = n - 1; i >= 0; i--) {
    offset += index % shape[i] * stride[i];
    index /= shape[i];
  }
  return offset;
}

static double sum_run(const real *x, int64_t n, int64_t stride) {
  double total = 0;
  for (int64_t i = 0; i < n; i++) total += x[i * stride];
  return total;
}

static double sum_dense(const real *x, int64_t n) {
  double total[8] = {0};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int j = 0; j < 8; j++) total[j] += x[i + j];
  for (; i < n; i++) total[0] += x[i];
  return ((total[0] + total[1]) + (total[2] + total[3])) + ((total[4] + total[5]) + (total[6] + total[7]));
}

static int sum_all(real *y, const real *x, int64_t n) {
  int64_t chunks = (n + CHUNK - 1) / CHUNK;
  if (chunks <= 1) {
    *y = (real)sum_dense(x, n);
    return 0;
  }
  double *partial = ty_alloc(chunks * 8);
  if (!partial) return ty_fail("sum: out of memory for %lld bytes", (long long)chunks * 8);
#pragma omp parallel for schedule(static) if (n >= 4 * TY_PARALLEL)
  for (int64_t c = 0; c < chunks; c++) partial[c] = sum_dense(x + c * CHUNK, n - c * CHUNK < CHUNK ? n - c * CHUNK : CHUNK);
  double total = 0;
  for (int64_t c = 0; c < chunks; c++) total += partial[c];
  ty_free(partial, chunks * 8);
  *y = (real)total;
  return 0;
}

/* y (n) = sum over rows of x (rows, n), x's rows `step` apart: blocks of rows in parallel, then the blocks in order. */
static int sum_rows(real *y, const real *x, int64_t rows, int64_t n, int64_t step) {
  int64_t blocks = (rows + ROWS - 1) / ROWS, bytes = blocks * n * (int64_t)sizeof(real);
  real *partial = blocks == 1 ? y : ty_alloc(bytes);
  if (!partial) return ty_fail("sum: out of memory for %lld bytes", (long long)bytes);
#pragma omp parallel for schedule(static) if (rows * n >= TY_PARALLEL)
  for (int64_t b = 0; b < blocks; b++) {
    real *out = partial + b * n;
    int64_t end = (b + 1) * ROWS < rows ? (b + 1) * ROWS : rows;
    memset(out, 0, (size_t)n * sizeof(real));
    for (int64_t r = b * ROWS; r < end; r++) {
      const real *row = x + r * step;
      for (int64_t j = 0; j < n; j++) out[j] += row[j];
    }
  }
  if (blocks == 1) return 0;
  for (int64_t j = 0; j < n; j++) {
    double total = 0;
    for (int64_t b = 0; b < blocks; b++) total += partial[b * n + j];
    y[j] = (real)total;
  }
  ty_free(partial, bytes);
  return 0;
}

int ty_sum(ty_tensor *y, const ty_tensor *x) {
  TY_TRY(ty_check_real("sum", "x", x));
  TY_TRY(ty_check_real("sum", "y", y));
  split s = {0};
  int64_t kept = 1, reduced = 1;
  if (y->ndim != x->ndim) return ty_fail("sum: y %s must have as many dims as x %s", ty_shape_text(y), ty_shape_text(x));
  for (int i = 0; i < x->ndim; i++) {
    int gone = y->shape[i] == 1 && x->shape[i] != 1;
    if (!gone && y->shape[i] != x->shape[i]) return ty_fail("sum: y %s does not reduce x %s", ty_shape_text(y), ty_shape_text(x));
    if (x->shape[i] == 1) continue;
    int *n = gone ? &s.reduced : &s.kept;
    if (!gone) s.out[*n] = y->stride[i];
    s.shape[gone][*n] = x->shape[i];
    s.stride[gone][(*n)++] = x->stride[i];
    *(gone ? &reduced : &kept) *= x->shape[i];
  }
  real *out = y->data;
  const real *in = x->data;
  if (kept == 0) return 0;
  if (kept == 1 && ty_is_dense(x)) return sum_all(out, in, reduced);
  /* Leading dims of a dense tensor reduced: bias and broadcast gradients. */
  if (reduced > 0 && s.reduced && ty_is_dense(x) && ty_is_dense(y) && s.stride[1][s.reduced - 1] >= kept && s.stride[0][s.kept - 1] == 1 &&
      s.stride[1][s.reduced - 1] == kept)
    return sum_rows(out, in, reduced, kept, kept);
  int inner = s.reduced - 1;
  int64_t run = s.reduced ? s.shape[1][inner] : 1, step = s.reduced ? s.stride[1][inner] : 0;
#pragma omp parallel for schedule(static) if (kept * reduced >= TY_PARALLEL && kept > 1)
  for (int64_t k = 0; k < kept; k++) {
    const real *base = in + offset_of(k, s.kept, s.shape[0], s.stride[0]);
    double total = 0;
    for (int64_t r = 0; run > 0 && r < reduced / run; r++) {
      const real *at = base + offset_of(r, inner < 0 ? 0 : inner, s.shape[1], s.stride[1]);
      total += step == 1 ? sum_dense(at, run) : sum_run(at, run, step);
    }
    out[offset_of(k, s.kept, s.shape[0], s.out)] = (real)total;
  }
  return 0;
}

/* ---- along the last dim ---- */

static int64_t last_size(const ty_tensor *x) { return x->ndim ? x->shape[x->ndim - 1] : 1; }

int ty_max(ty_tensor *y, ty_tensor *index, const ty_tensor *x) {
  TY_TRY(ty_check_real("max", "x", x));
  TY_TRY(ty_check_dense("max", "y", y, TY_REAL, x->ndim));
  TY_TRY(ty_check_dense("max", "index", index, TY_I64, x->ndim));
  int64_t n = last_size(x), rows = ty_numel(y), step = x->ndim ? x->stride[x->ndim - 1] : 1;
  if (n == 0) return ty_fail("max: the last dim of %s is empty", ty_shape_text(x));
  for (int64_t r = 0; r < rows; r++) {
    const real *row = (const real *)x->data + offset_of(r, x->ndim - 1, x->shape, x->stride);
    int64_t best = 0;
    for (int64_t j = 1; j < n; j++)
      if (row[j * step] > row[best * step]) best = j;
    ((real *)y->data)[r] = row[best * step];
    ((int64_t *)index->data)[r] = best;
  }
  return 0;
}

int ty_softmax(ty_tensor *y, const ty_tensor *x) {
  TY_TRY(ty_check_dense("softmax", "x", x, TY_REAL, -1));
  TY_TRY(ty_check_dense("softmax", "y", y, TY_REAL, x->ndim));
  int64_t n = last_size(x), rows = n ? ty_numel(x) / n : 0;
#pragma omp parallel for schedule(static) if (rows * n >= TY_PARALLEL)
  for (int64_t r = 0; r < rows; r++) {
    const real *in = (const real *)x->data + r * n;
    real *out = (real *)y->data + r * n, top = in[0], total = 0;
    for (int64_t j = 1; j < n; j++) top = in[j] > top ? in[j] : top;
    for (int64_t j = 0; j < n; j++) out[j] = fast_exp(in[j] - top);
    for (int64_t j = 0; j < n; j++) total += out[j];
    for (int64_t j = 0; j < n; j++) out[j] /= total;
  }
  return 0;
}

int ty_softmax_back(ty_tensor *dx, const ty_tensor *dy, const ty_tensor *y) {
  TY_TRY(ty_check_dense("softmax backward", "dy", dy, TY_REAL, y->ndim));
  TY_TRY(ty_check_dense("softmax backward", "dx", dx, TY_REAL, y->ndim));
  int64_t n = last_size(y), rows = n ? ty_numel(y) / n : 0;
#pragma omp parallel for schedule(static) if (rows * n >= TY_PARALLEL)
  for (int64_t r = 0; r < rows; r++) {
    const real *p = (const real *)y->data + r * n, *g = (const real *)dy->data + r * n;
    real *out = (real *)dx->data + r * n, dot = 0;
    for (int64_t j = 0; j < n; j++) dot += g[j] * p[j];
    for (int64_t j = 0; j < n; j++) out[j] = p[j] * (g[j] - dot);
  }
  return 0;
}

int ty_normalize(ty_tensor *y, ty_tensor *norm, const ty_tensor *x, double eps) {
  TY_TRY(ty_check_dense("normalize", "x", x, TY_REAL, -1));
  TY_TRY(ty_check_dense("normalize", "y", y, TY_REAL, x->ndim));
  TY_TRY(ty_check_dense("normalize", "norm", norm, TY_REAL, 1));
  int64_t n = last_size(x), rows = n ? ty_numel(x) / n : 0;
  TY_TRY(ty_check_size("normalize", "norm", norm, 0, rows));
#pragma omp parallel for schedule(static) if (rows * n >= TY_PARALLEL)
  for (int64_t r = 0; r < rows; r++) {
    const real *in = (const real *)x->data + r * n;
    real *out = (real *)y->data + r * n;
    double square = 0;
    for (int64_t j = 0; j < n; j++) square += (double)in[j] * in[j];
    real length = (real)sqrt(square), scale = 1 / (length > (real)eps ? length : (real)eps);
    for (int64_t j = 0; j < n; j++) out[j] = in[j] * scale;
    ((real *)norm->data)[r] = length;
  }
  return 0;
}

int ty_normalize_back(ty_tensor *dx, const ty_tensor *dy, const ty_tensor *y, const ty_tensor *norm, double eps) {
  TY_TRY(ty_check_dense("normalize backward", "dy", dy, TY_REAL, y->ndim));
  TY_TRY(ty_check_dense("normalize backward", "dx", dx, TY_REAL, y->ndim));
  int64_t n = last_size(y), rows = n ? ty_numel(y) / n : 0;
#pragma omp parallel for schedule(static) if (rows * n >= TY_PARALLEL)
  for (int64_t r = 0; r < rows; r++) {
    const real *p = (const real *)y->data + r * n, *g = (const real *)dy->data + r * n;
    real *out = (real *)dx->data + r * n, length = ((const real *)norm->data)[r], dot = 0;
    int constant = !(length > (real)eps); /* below eps the divisor does not depend on x */
    real scale = 1 / (constant ? (real)eps : length);
    for (int64_t j = 0; j < n; j++) dot += g[j] * p[j];
    if (constant) dot = 0;
    for (int64_t j = 0; j < n; j++) out[j] = (g[j] - p[j] * dot) * scale;
  }
  return 0;
}
