/* Batch norm (with the residual sum and the ReLU that follow it in a ResNet) and layer norm.
 * Sums run over blocks of rows whose size depends on the shape alone, and blocks are joined in order: the thread count does not
 * change a result. Variances are sums of squares about a mean, never differences of large numbers. */
#include "accept.h"

/* A block stays in the second-level cache between its two readings, and is short enough for plain sums. */
enum { BLOCK_ELEMENTS = 16384, MIN_BLOCK_ROWS = 16, MAX_BLOCK_ROWS = 512 };

static int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

/* x as rows of `channels` values, and its division into blocks. */
typedef struct { int64_t rows, channels, block_rows, blocks; } grid;
static grid grid_of(int64_t rows, int64_t channels) {
  grid g = {.rows = rows, .channels = channels};
  g.block_rows = min(MAX_BLOCK_ROWS, max(MIN_BLOCK_ROWS, BLOCK_ELEMENTS / max(1, channels)));
  g.blocks = (rows + g.block_rows - 1) / g.block_rows;
  return g;
}
static int64_t rows_in(const grid *g, int64_t block) { return min(g->block_rows, g->rows - block * g->block_rows); }

/* ---- batch norm: forward ---- */

/* sum[c] = sum of the rows, squares[c] = sum of their squared distances from the block's own mean. */
static void block_moments(real *sum, real *squares, const real *x, int64_t rows, int64_t channels) {
  memset(sum, 0, (size_t)channels * sizeof *sum);
  memset(squares, 0, (size_t)channels * sizeof *squares);
  real scale = 1 / (real)rows;
  int64_t r = 0;
  /* Four rows at a time: the sums are loaded and stored a quarter as often. */
  for (; r + 4 <= rows; r += 4) {
    const real *a = x + r * channels, *b = a + channels, *c = b + channels, *d = c + channels;
#pragma omp simd
    for (int64_t k = 0; k < channels; k++) sum[k] += (a[k] + b[k]) + (c[k] + d[k]);
  }
  for (; r < rows; r++)
#pragma omp simd
    for (int64_t k = 0; k < channels; k++) sum[k] += x[r * channels + k];
  for (r = 0; r + 4 <= rows; r += 4) {
    const real *a = x + r * channels, *b = a + channels, *c = b + channels, *d = c + channels;
#pragma omp simd
    for (int64_t k = 0; k < channels; k++) {
      real mean = sum[k] * scale, p = a[k] - mean, q = b[k] - mean, s = c[k] - mean, t = d[k] - mean;
      squares[k] += (p * p + q * q) + (s * s + t * t);
    }
  }
  for (; r < rows; r++)
#pragma omp simd
    for (int64_t k = 0; k < channels; k++) {
      real p = x[r * channels + k] - sum[k] * scale;
      squares[k] += p * p;
    }
}

/* Joins one channel's moments of all blocks, parts[block][sum, squares][channel], into the mean and the sum of squares about it. */
static void join_moments(const grid *g, const real *parts, int64_t k, double *mean, double *squares) {
  double sum = 0, within = 0, between = 0;
  for (int64_t b = 0; b < g->blocks; b++) sum += parts[2 * b * g->channels + k];
  *mean = g->rows ? sum / (double)g->rows : 0;
  for (int64_t b = 0; b < g->blocks; b++) {
    double rows = (double)rows_in(g, b), distance = parts[2 * b * g->channels + k] / rows - *mean;
    within += parts[(2 * b + 1) * g->channels + k];
    between += rows * distance * distance;
  }
  *squares = within + between;
}

/* y = act((x - mean) * scale + bias + residual) over `rows` rows; residual may be NULL. NaN passes the ReLU. */
static void scale_rows(real *y, const real *x, const real *mean, const real *scale, const real *bias, const real *residual, int relu,
                       int64_t rows, int64_t channels) {
  for (int64_t r = 0; r < rows; r++, x += channels, y += channels) {
    if (residual) {
#pragma omp simd
      for (int64_t k = 0; k < channels; k++) {
        real v = (x[k] - mean[k]) * scale[k] + bias[k] + residual[k];
        y[k] = relu && v < 0 ? 0 : v;
      }
      residual += channels;
    } else {
#pragma omp simd
      for (int64_t k = 0; k < channels; k++) {
        real v = (x[k] - mean[k]) * scale[k] + bias[k];
        y[k] = relu && v < 0 ? 0 : v;
      }
    }
  }
}

int ty_batch_norm(ty_tensor *y, ty_tensor *mean, ty_tensor *rstd, ty_tensor *running_mean, ty_tensor *running_var, const ty_tensor *x,
                  const ty_tensor *weight, const ty_tensor *bias, const ty_tensor *residual, int relu, double momentum, double eps) {
  static const char op[] = "batch_norm";
  ty_matrix size;
  TY_TRY(ty_accept_batch_norm(&size, y, mean, rstd, running_mean, running_var, x, weight, bias, residual));
  grid g = grid_of(size.rows, size.columns);
  int64_t bytes = (2 * g.blocks + 1) * g.channels * (int64_t)sizeof(real);
  real *parts = ty_alloc(bytes), *scale = parts + 2 * g.blocks * g.channels;
  if (!parts) return ty_no_scratch(op, bytes);
  const real *from = x->data, *w = weight->data;
  real *m = mean->data, *s = rstd->data, *moving_mean = running_mean ? running_mean->data : NULL;
  real *moving_var = running_var ? running_var->data : NULL;
#pragma omp parallel if (ty_numel(x) > TY_PARALLEL)
  {
#pragma omp for
    for (int64_t b = 0; b < g.blocks; b++) {
      if (ty_is_unwanted()) continue;
      block_moments(parts + 2 * b * g.channels, parts + (2 * b + 1) * g.channels, from + b * g.block_rows * g.channels, rows_in(&g, b),
                    g.channels);
    }
#pragma omp for
    for (int64_t k = 0; k < g.channels; k++) {
      if (ty_is_unwanted()) continue; /* the running moments stay */
      double centre, squares;
      join_moments(&g, parts, k, &centre, &squares);
      m[k] = (real)centre;
      s[k] = (real)(1 / sqrt((g.rows ? squares / (double)g.rows : 0) + eps));
      scale[k] = w[k] * s[k];
      if (g.rows == 0) continue;
      if (moving_mean) moving_mean[k] += (real)(momentum * (centre - moving_mean[k]));
      if (moving_var) moving_var[k] += (real)(momentum * (squares / (double)(g.rows - 1) - moving_var[k]));
    }
#pragma omp for
    for (int64_t b = 0; b < g.blocks; b++) {
      if (ty_is_unwanted()) continue;
      int64_t at = b * g.block_rows * g.channels;
      scale_rows((real *)y->data + at, from + at, m, scale, bias->data, residual ? (real *)residual->data + at : NULL, relu,
                 rows_in(&g, b), g.channels);
    }
  }
  ty_free(parts, bytes);
  return 0;
}

int ty_batch_norm_eval(ty_tensor *y, const ty_tensor *x, const ty_tensor *weight, const ty_tensor *bias, const ty_tensor *running_mean,
                       const ty_tensor *running_var, const ty_tensor *residual, int relu, double eps) {
  static const char op[] = "batch_norm_eval";
  ty_matrix size;
  TY_TRY(ty_accept_batch_norm_eval(&size, y, x, weight, bias, running_mean, running_var, residual));
  grid g = grid_of(size.rows, size.columns);
  int64_t bytes = g.channels * (int64_t)sizeof(real);
  real *scale = ty_alloc(bytes);
  if (!scale) return ty_no_scratch(op, bytes);
  const real *w = weight->data, *var = running_var->data;
  for (int64_t k = 0; k < g.channels; k++) scale[k] = (real)(w[k] / sqrt((double)var[k] + eps));
#pragma omp parallel for if (ty_numel(x) > TY_PARALLEL)
  for (int64_t b = 0; b < g.blocks; b++) {
    if (ty_is_unwanted()) continue;
    int64_t at = b * g.block_rows * g.channels;
    scale_rows((real *)y->data + at, (real *)x->data + at, running_mean->data, scale, bias->data,
               residual ? (real *)residual->data + at : NULL, relu, rows_in(&g, b), g.channels);
  }
  ty_free(scale, bytes);
  return 0;
}

/* ---- batch norm: backward ---- */

/* sum[c] = sum of d, product[c] = sum of d * (x - mean), where d = dy, or dy where y > 0. */
static void block_gradients(real *sum, real *product, const real *dy, const real *x, const real *y, const real *mean, int relu,
                            int64_t rows, int64_t channels) {
  memset(sum, 0, (size_t)channels * sizeof *sum);
  memset(product, 0, (size_t)channels * sizeof *product);
  for (int64_t r = 0; r < rows; r++, dy += channels, x += channels, y += channels)
    if (relu) {
#pragma omp simd
      for (int64_t k = 0; k < channels; k++) {
        real d = y[k] > 0 ? dy[k] : 0;
        sum[k] += d;
        product[k] += d * (x[k] - mean[k]);
      }
    } else {
#pragma omp simd
      for (int64_t k = 0; k < channels; k++) {
        sum[k] += dy[k];
        product[k] += dy[k] * (x[k] - mean[k]);
      }
    }
}

/* dx = d * scale - shift - (x - mean) * slope, and dresidual = d when asked for. */
static void input_gradients(real *dx, real *dresidual, const real *dy, const real *x, const real *y, const real *mean, const real *scale,
                            const real *shift, const real *slope, int relu, int64_t rows, int64_t channels) {
  for (int64_t r = 0; r < rows; r++, dx += channels, dy += channels, x += channels, y += channels) {
    if (dresidual) {
#pragma omp simd
      for (int64_t k = 0; k < channels; k++) {
        real d = relu ? y[k] > 0 ? dy[k] : 0 : dy[k];
        dresidual[k] = d;
        dx[k] = d * scale[k] - shift[k] - (x[k] - mean[k]) * slope[k];
      }
      dresidual += channels;
    } else {
#pragma omp simd
      for (int64_t k = 0; k < channels; k++) {
        real d = relu ? y[k] > 0 ? dy[k] : 0 : dy[k];
        dx[k] = d * scale[k] - shift[k] - (x[k] - mean[k]) * slope[k];
      }
    }
  }
}

int ty_batch_norm_back(ty_tensor *dx, ty_tensor *dweight, ty_tensor *dbias, ty_tensor *dresidual, const ty_tensor *dy, const ty_tensor *x,
                       const ty_tensor *y, const ty_tensor *weight, const ty_tensor *mean, const ty_tensor *rstd, int relu, int fixed) {
  static const char op[] = "batch_norm_back";
  ty_matrix size;
  TY_TRY(ty_accept_batch_norm_back(&size, dx, dweight, dbias, dresidual, dy, x, y, weight, mean, rstd));
  grid g = grid_of(size.rows, size.columns);
  int64_t channels = g.channels;
  int64_t bytes = (2 * g.blocks + 3) * channels * (int64_t)sizeof(real);
  real *parts = ty_alloc(bytes), *scale = parts + 2 * g.blocks * channels, *shift = scale + channels, *slope = shift + channels;
  if (!parts) return ty_no_scratch(op, bytes);
  const real *m = mean->data, *w = weight->data, *s = rstd->data;
#pragma omp parallel if (ty_numel(x) > TY_PARALLEL)
  {
#pragma omp for
    for (int64_t b = 0; b < g.blocks; b++) {
      if (ty_is_unwanted()) continue;
      int64_t at = b * g.block_rows * channels;
      block_gradients(parts + 2 * b * channels, parts + (2 * b + 1) * channels, (real *)dy->data + at, (real *)x->data + at,
                      (real *)y->data + at, m, relu, rows_in(&g, b), channels);
    }
#pragma omp for
    for (int64_t k = 0; k < channels; k++) {
      double sum = 0, product = 0, share = fixed || g.rows == 0 ? 0 : 1 / (double)g.rows;
      for (int64_t b = 0; b < g.blocks; b++) {
        sum += parts[2 * b * channels + k];
        product += parts[(2 * b + 1) * channels + k];
      }
      ((real *)dbias->data)[k] = (real)sum;
      ((real *)dweight->data)[k] = (real)(product * s[k]);
      scale[k] = w[k] * s[k];
      shift[k] = (real)(w[k] * s[k] * sum * share);
      slope[k] = (real)((double)w[k] * s[k] * s[k] * s[k] * product * share);
    }
#pragma omp for
    for (int64_t b = 0; b < g.blocks; b++) {
      if (ty_is_unwanted()) continue;
      int64_t at = b * g.block_rows * channels;
      input_gradients((real *)dx->data + at, dresidual ? (real *)dresidual->data + at : NULL, (real *)dy->data + at, (real *)x->data + at,
                      (real *)y->data + at, m, scale, shift, slope, relu, rows_in(&g, b), channels);
    }
  }
  ty_free(parts, bytes);
  return 0;
}

/* ---- layer norm ---- */

int ty_layer_norm(ty_tensor *y, ty_tensor *mean, ty_tensor *rstd, const ty_tensor *x, const ty_tensor *weight, const ty_tensor *bias,
                  double eps) {
  ty_matrix size;
  TY_TRY(ty_accept_layer_norm(&size, y, mean, rstd, x, weight, bias));
  grid g = grid_of(size.rows, size.columns);
  const real *w = weight->data, *offset = bias->data;
#pragma omp parallel for if (ty_numel(x) > TY_PARALLEL)
  for (int64_t r = 0; r < g.rows; r++) {
    if (ty_is_unwanted()) continue;
    const real *from = (real *)x->data + r * g.channels;
    real *to = (real *)y->data + r * g.channels, sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < g.channels; k++) sum += from[k];
    real m = sum / (real)g.channels;
#pragma omp simd reduction(+ : squares)
    for (int64_t k = 0; k < g.channels; k++) squares += (from[k] - m) * (from[k] - m);
    real s = (real)(1 / sqrt(squares / (double)g.channels + eps));
#pragma omp simd
    for (int64_t k = 0; k < g.channels; k++) to[k] = (from[k] - m) * s * w[k] + offset[k];
    ((real *)mean->data)[r] = m;
    ((real *)rstd->data)[r] = s;
  }
  return 0;
}

/* One row of dx; adds the row's share to the block's sums of dweight and dbias. */
static void layer_row_back(real *dx, real *dweight, real *dbias, const real *dy, const real *x, const real *w, real mean, real rstd,
                           int64_t channels) {
  real sum = 0, product = 0;
#pragma omp simd reduction(+ : sum, product)
  for (int64_t k = 0; k < channels; k++) {
    real z = (x[k] - mean) * rstd, d = dy[k] * w[k];
    sum += d;
    product += d * z;
    dweight[k] += dy[k] * z;
    dbias[k] += dy[k];
  }
  sum /= (real)channels;
  product /= (real)channels;
#pragma omp simd
  for (int64_t k = 0; k < channels; k++) dx[k] = rstd * (dy[k] * w[k] - sum - (x[k] - mean) * rstd * product);
}

int ty_layer_norm_back(ty_tensor *dx, ty_tensor *dweight, ty_tensor *dbias, const ty_tensor *dy, const ty_tensor *x,
                       const ty_tensor *weight, const ty_tensor *mean, const ty_tensor *rstd) {
  static const char op[] = "layer_norm_back";
  ty_matrix size;
  TY_TRY(ty_accept_layer_norm_back(&size, dx, dweight, dbias, dy, x, weight, mean, rstd));
  grid g = grid_of(size.rows, size.columns);
  int64_t bytes = 2 * g.blocks * g.channels * (int64_t)sizeof(real);
  real *parts = ty_alloc(bytes);
  if (!parts) return ty_no_scratch(op, bytes);
  const real *m = mean->data, *s = rstd->data;
#pragma omp parallel if (ty_numel(x) > TY_PARALLEL)
  {
#pragma omp for
    for (int64_t b = 0; b < g.blocks; b++) {
      if (ty_is_unwanted()) continue;
      real *sums = parts + 2 * b * g.channels;
      memset(sums, 0, (size_t)(2 * g.channels) * sizeof *sums);
      for (int64_t r = b * g.block_rows; r < b * g.block_rows + rows_in(&g, b); r++)
        layer_row_back((real *)dx->data + r * g.channels, sums, sums + g.channels, (real *)dy->data + r * g.channels,
                       (real *)x->data + r * g.channels, weight->data, m[r], s[r], g.channels);
    }
#pragma omp for
    for (int64_t k = 0; k < g.channels; k++) {
      double first = 0, second = 0;
      for (int64_t b = 0; b < g.blocks; b++) {
        first += parts[2 * b * g.channels + k];
        second += parts[(2 * b + 1) * g.channels + k];
      }
      ((real *)dweight->data)[k] = (real)first;
      ((real *)dbias->data)[k] = (real)second;
    }
  }
  ty_free(parts, bytes);
  return 0;
}
