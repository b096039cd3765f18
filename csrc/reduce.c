/* Reductions: sums over any dims, and softmax, normalisation and maximum over the last one. Partial sums have fixed extents, so results
 * do not depend on the number of threads. */
#include "accept.h"
#include "fast_math.h"

/* ---- sum ----
 * A run of memory is summed in double. Columns are summed in float over a few rows and then in double, because narrow accumulators
 * are what makes them fast. */

enum { CHUNK = 4096, COLUMNS = 256, FLOAT_ROWS = 64, BLOCK_ROWS = 1024, SHORT_RUN = 16 };

/* Offset of element index of the first n dims. */
static int64_t offset_of(int64_t index, int n, const int64_t *shape, const int64_t *stride) {
  if (n == 1) return index * stride[0];
  int64_t offset = 0;
  for (int i = n - 1; i >= 0; i--) {
    offset += index % shape[i] * stride[i];
    index /= shape[i];
  }
  return offset;
}

static double sum_run(const real *x, int64_t n, int64_t stride) {
  double total = 0;
  if (stride == 1 && n >= SHORT_RUN) {
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < n; i++) total += x[i];
  } else {
    for (int64_t i = 0; i < n; i++) total += x[i * stride];
  }
  return total;
}

/* The sum of n elements; chunks in parallel. */
static int sum_all(real *y, const real *x, int64_t n, int64_t stride) {
  int64_t chunks = (n + CHUNK - 1) / CHUNK;
  if (chunks <= 1) {
    *y = (real)sum_run(x, n, stride);
    return 0;
  }
  double *partial = ty_alloc(chunks * 8);
  if (!partial) return ty_fail("sum: out of memory for %lld bytes", (long long)chunks * 8);
#pragma omp parallel for schedule(static) if (n >= 4 * TY_PARALLEL)
  for (int64_t c = 0; c < chunks; c++) {
    if (ty_is_unwanted()) continue;
    partial[c] = sum_run(x + c * CHUNK * stride, n - c * CHUNK < CHUNK ? n - c * CHUNK : CHUNK, stride);
  }
  double total = 0;
  for (int64_t c = 0; c < chunks; c++) total += partial[c];
  *y = (real)total;
  ty_free(partial, chunks * 8);
  return 0;
}

/* Every element of y is a sum along memory. */
static void sum_runs(real *y, const real *x, const ty_dims *kept, const ty_dims *reduced) {
  int inner = reduced->n - 1;
  int64_t run = reduced->n ? reduced->shape[inner] : reduced->total, step = reduced->n ? reduced->stride[inner] : 1;
  int64_t runs = reduced->total ? reduced->total / run : 0;
#pragma omp parallel for schedule(static) if (kept->total * reduced->total >= TY_PARALLEL)
  for (int64_t k = 0; k < kept->total; k++) {
    const real *from = x + offset_of(k, kept->n, kept->shape, kept->stride);
    double total = 0;
    for (int64_t r = 0; r < runs && !ty_is_unwanted(); r++) total += sum_run(from + offset_of(r, inner, reduced->shape, reduced->stride), run, step);
    y[offset_of(k, kept->n, kept->shape, kept->out)] = (real)total;
  }
}

/* total (columns) = sum over rows start to end. */
static void sum_columns(double *total, const real *x, const ty_dims *reduced, int64_t start, int64_t end, int64_t columns) {
  for (int64_t j = 0; j < columns; j++) total[j] = 0;
  for (int64_t r = start; r < end;) {
    real part[COLUMNS] = {0};
    int64_t stop = end - r < FLOAT_ROWS ? end : r + FLOAT_ROWS;
    for (; r < stop; r++) {
      const real *row = x + offset_of(r, reduced->n, reduced->shape, reduced->stride);
      for (int64_t j = 0; j < columns; j++) part[j] += row[j];
    }
    for (int64_t j = 0; j < columns; j++) total[j] += part[j];
  }
}

/* Sums across memory: x's innermost kept dim has unit stride. Tiles of columns and blocks of rows in parallel, then the blocks in order. */
static int sum_rows(real *y, const real *x, const ty_dims *kept, const ty_dims *reduced) {
  int inner = kept->n - 1;
  int64_t width = kept->shape[inner], step = kept->out[inner], outer = kept->total / width;
  int64_t tiles = (width + COLUMNS - 1) / COLUMNS, blocks = (reduced->total + BLOCK_ROWS - 1) / BLOCK_ROWS;
  int64_t bytes = blocks * outer * width * 8;
  double *partial = ty_alloc(bytes);
  if (!partial) return ty_fail("sum: out of memory for %lld bytes", (long long)bytes);
#pragma omp parallel for schedule(static) if (kept->total * reduced->total >= TY_PARALLEL)
  for (int64_t task = 0; task < blocks * outer * tiles; task++) {
    if (ty_is_unwanted()) continue;
    int64_t j = task % tiles * COLUMNS, o = task / tiles % outer, b = task / (tiles * outer);
    int64_t end = (b + 1) * BLOCK_ROWS < reduced->total ? (b + 1) * BLOCK_ROWS : reduced->total;
    sum_columns(partial + (b * outer + o) * width + j, x + offset_of(o, inner, kept->shape, kept->stride) + j, reduced, b * BLOCK_ROWS, end,
                width - j < COLUMNS ? width - j : COLUMNS);
  }
  for (int64_t o = 0; o < outer; o++) {
    real *to = y + offset_of(o, inner, kept->shape, kept->out);
    for (int64_t j = 0; j < width; j++) {
      double total = 0;
      for (int64_t b = 0; b < blocks; b++) total += partial[(b * outer + o) * width + j];
      to[j * step] = (real)total;
    }
  }
  ty_free(partial, bytes);
  return 0;
}

int ty_sum(ty_tensor *y, const ty_tensor *x) {
  ty_dims kept, reduced;
  TY_TRY(ty_accept_sum(&kept, &reduced, y, x));
  if (kept.total == 0) return 0;
  if (kept.n == 0 && reduced.n == 1) return sum_all(y->data, x->data, reduced.total, reduced.stride[0]);
  if (kept.n && reduced.n && kept.stride[kept.n - 1] == 1) return sum_rows(y->data, x->data, &kept, &reduced);
  sum_runs(y->data, x->data, &kept, &reduced);
  return 0;
}

/* ---- along the last dim ---- */

/* The first index of the largest of n elements; a NaN counts as largest. */
static int64_t largest(const real *x, int64_t n, int64_t stride) {
  real top = x[0];
  int nans = 0;
#pragma omp simd reduction(max : top) reduction(| : nans)
  for (int64_t j = 0; j < n; j++) {
    real value = x[j * stride];
    top = value > top ? value : top;
    nans |= value != value;
  }
  int64_t best = 0;
  while (nans ? x[best * stride] == x[best * stride] : x[best * stride] != top) best++;
  return best;
}

int ty_max(ty_tensor *y, ty_tensor *index, const ty_tensor *x) {
  ty_matrix m;
  TY_TRY(ty_accept_max(&m, y, index, x));
  int64_t n = m.columns, rows = m.rows, step = x->ndim ? x->stride[x->ndim - 1] : 1;
#pragma omp parallel for schedule(static) if (rows * n >= TY_PARALLEL)
  for (int64_t r = 0; r < rows; r++) {
    if (ty_is_unwanted()) continue;
    const real *row = (const real *)x->data + offset_of(r, x->ndim - 1, x->shape, x->stride);
    int64_t best = largest(row, n, step);
    ((real *)y->data)[r] = row[best * step];
    ((int64_t *)index->data)[r] = best;
  }
  return 0;
}

int ty_softmax(ty_tensor *y, const ty_tensor *x) {
  ty_matrix m;
  TY_TRY(ty_accept_softmax(&m, y, x));
  int64_t n = m.columns, rows = m.rows;
#pragma omp parallel for schedule(static) if (rows * n >= TY_PARALLEL)
  for (int64_t r = 0; r < rows; r++) {
    if (ty_is_unwanted()) continue;
    const real *in = (const real *)x->data + r * n;
    real *out = (real *)y->data + r * n, top = in[0], total = 0;
#pragma omp simd reduction(max : top)
    for (int64_t j = 0; j < n; j++) top = in[j] > top ? in[j] : top;
#pragma omp simd reduction(+ : total)
    for (int64_t j = 0; j < n; j++) {
      out[j] = fast_exp(in[j] - top);
      total += out[j];
    }
    real scale = 1 / total;
#pragma omp simd
    for (int64_t j = 0; j < n; j++) out[j] *= scale;
  }
  return 0;
}

int ty_softmax_back(ty_tensor *dx, const ty_tensor *dy, const ty_tensor *y) {
  ty_matrix m;
  TY_TRY(ty_accept_softmax_back(&m, dx, dy, y));
  int64_t n = m.columns, rows = m.rows;
#pragma omp parallel for schedule(static) if (rows * n >= TY_PARALLEL)
  for (int64_t r = 0; r < rows; r++) {
    if (ty_is_unwanted()) continue;
    const real *p = (const real *)y->data + r * n, *g = (const real *)dy->data + r * n;
    real *out = (real *)dx->data + r * n, dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t j = 0; j < n; j++) dot += g[j] * p[j];
#pragma omp simd
    for (int64_t j = 0; j < n; j++) out[j] = p[j] * (g[j] - dot);
  }
  return 0;
}

int ty_normalize(ty_tensor *y, ty_tensor *norm, const ty_tensor *x, double eps) {
  ty_matrix m;
  TY_TRY(ty_accept_normalize(&m, y, norm, x));
  int64_t n = m.columns, rows = m.rows;
#pragma omp parallel for schedule(static) if (rows * n >= TY_PARALLEL)
  for (int64_t r = 0; r < rows; r++) {
    if (ty_is_unwanted()) continue;
    const real *in = (const real *)x->data + r * n;
    real *out = (real *)y->data + r * n;
    double square = 0;
#pragma omp simd reduction(+ : square)
    for (int64_t j = 0; j < n; j++) square += (double)in[j] * in[j];
    real length = (real)sqrt(square), scale = 1 / (length < (real)eps ? (real)eps : length);
#pragma omp simd
    for (int64_t j = 0; j < n; j++) out[j] = in[j] * scale;
    ((real *)norm->data)[r] = length;
  }
  return 0;
}

int ty_normalize_back(ty_tensor *dx, const ty_tensor *dy, const ty_tensor *y, const ty_tensor *norm, double eps) {
  ty_matrix m;
  TY_TRY(ty_accept_normalize_back(&m, dx, dy, y, norm));
  int64_t n = m.columns, rows = m.rows;
#pragma omp parallel for schedule(static) if (rows * n >= TY_PARALLEL)
  for (int64_t r = 0; r < rows; r++) {
    if (ty_is_unwanted()) continue;
    const real *p = (const real *)y->data + r * n, *g = (const real *)dy->data + r * n;
    real *out = (real *)dx->data + r * n, length = ((const real *)norm->data)[r], dot = 0;
    int constant = length < (real)eps; /* the divisor does not depend on x */
    real scale = 1 / (constant ? (real)eps : length);
#pragma omp simd reduction(+ : dot)
    for (int64_t j = 0; j < n; j++) dot += g[j] * p[j];
    if (constant) dot = 0;
#pragma omp simd
    for (int64_t j = 0; j < n; j++) out[j] = (g[j] - p[j] * dot) * scale;
  }
  return 0;
}
