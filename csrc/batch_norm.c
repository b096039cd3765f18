/* Batch norm with what follows it in a ResNet: the residual sum and the ReLU, or the ReLU and max pooling. Variances are sums of squares about a
 * mean, never differences of large numbers. */
#include "accept.h"
#include "pool.h"
#include "row_blocks.h"
#include <omp.h>

/* ---- statistics ---- */

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

int ty_batch_norm_statistics(ty_tensor *mean, ty_tensor *rstd, ty_tensor *running_mean, ty_tensor *running_var, const ty_tensor *x, double momentum,
                             double eps) {
  static const char op[] = "batch_norm";
  ty_matrix size;
  TY_TRY(ty_accept_statistics(&size, mean, rstd, running_mean, running_var, x));
  grid g = grid_of(size.rows, size.columns);
  int64_t bytes = 2 * g.blocks * g.channels * (int64_t)sizeof(real);
  real *parts = ty_alloc(bytes);
  if (!parts) return ty_no_scratch(op, bytes);
  const real *from = x->data;
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
      if (g.rows == 0) continue;
      if (moving_mean) moving_mean[k] += (real)(momentum * (centre - moving_mean[k]));
      if (moving_var) moving_var[k] += (real)(momentum * (squares / (double)(g.rows - 1) - moving_var[k]));
    }
  }
  ty_free(parts, bytes);
  return 0;
}

int ty_batch_norm_rstd(ty_tensor *rstd, const ty_tensor *var, double eps) {
  TY_TRY(ty_accept_rstd(rstd, var));
  const real *v = var->data;
  for (int64_t k = 0; k < ty_numel(var); k++) ((real *)rstd->data)[k] = (real)(1 / sqrt((double)v[k] + eps));
  return 0;
}

/* ---- forward ---- */

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

static void scales_of(real *scale, const ty_tensor *weight, const ty_tensor *rstd) {
  for (int64_t k = 0; k < ty_numel(weight); k++) scale[k] = ((real *)weight->data)[k] * ((real *)rstd->data)[k];
}

int ty_batch_norm(ty_tensor *y, const ty_tensor *x, const ty_tensor *mean, const ty_tensor *rstd, const ty_tensor *weight, const ty_tensor *bias,
                  const ty_tensor *residual, int relu) {
  static const char op[] = "batch_norm";
  ty_matrix size;
  TY_TRY(ty_accept_batch_norm(&size, y, x, mean, rstd, weight, bias, residual));
  grid g = grid_of(size.rows, size.columns);
  int64_t bytes = g.channels * (int64_t)sizeof(real);
  real *scale = ty_alloc(bytes);
  if (!scale) return ty_no_scratch(op, bytes);
  scales_of(scale, weight, rstd);
#pragma omp parallel for if (ty_numel(x) > TY_PARALLEL)
  for (int64_t b = 0; b < g.blocks; b++) {
    if (ty_is_unwanted()) continue;
    int64_t at = b * g.block_rows * g.channels;
    scale_rows((real *)y->data + at, (real *)x->data + at, mean->data, scale, bias->data, residual ? (real *)residual->data + at : NULL, relu,
               rows_in(&g, b), g.channels);
  }
  ty_free(scale, bytes);
  return 0;
}

/* Pooled rows in strips of a few: what these see is scaled where it stays in the cache, and little of it for two strips. */
int ty_batch_norm_pool(ty_tensor *y, ty_tensor *index, const ty_tensor *x, const ty_tensor *mean, const ty_tensor *rstd, const ty_tensor *weight,
                       const ty_tensor *bias, int relu, int kernel, int stride, int padding) {
  enum { STRIP = 4 };
  static const char op[] = "batch_norm";
  TY_TRY(ty_accept_batch_norm_pool(y, index, x, mean, rstd, weight, bias, kernel, stride, padding));
  ty_windows s = ty_windows_of(x, y, kernel, stride, padding);
  int64_t row = s.w * s.c, pooled = s.ow * s.c, own = ((STRIP - 1) * stride + kernel) * row, strips = (s.oh + STRIP - 1) / STRIP;
  int64_t bytes = (s.c + omp_get_max_threads() * own) * (int64_t)sizeof(real);
  real *scale = ty_alloc(bytes);
  if (!scale) return ty_no_scratch(op, bytes);
  scales_of(scale, weight, rstd);
#pragma omp parallel for if (ty_numel(x) > TY_PARALLEL)
  for (int64_t i = 0; i < s.n * strips; i++) {
    if (ty_is_unwanted()) continue;
    real *mine = scale + s.c + omp_get_thread_num() * own;
    int64_t image = i / strips, first = image * s.oh + i % strips * STRIP, last = min(first + STRIP, (image + 1) * s.oh) - 1;
    int64_t top = ty_pool_band(&s, first).first, end = ty_pool_band(&s, last).end;
    scale_rows(mine, (real *)x->data + (image * s.h + top) * row, mean->data, scale, bias->data, NULL, relu, (end - top) * s.w, s.c);
    for (int64_t r = first; r <= last; r++)
      ty_pool_row(&s, r, (real *)y->data + r * pooled, (uint8_t *)index->data + r * pooled, mine + (ty_pool_band(&s, r).first - top) * row);
  }
  ty_free(scale, bytes);
  return 0;
}

/* ---- backward ---- */

/* What the ReLU's gradient is masked by: nothing, the result y, or the result that x alone gives. */
typedef enum { OPEN, BY_RESULT, BY_INPUT } gate;

/* What dy adds to the gradient before the ReLU. */
static inline real through(gate of, real dy, real x, real y, real mean, real scale, real bias) {
  return of == OPEN || (of == BY_RESULT ? y : (x - mean) * scale + bias) > 0 ? dy : 0;
}

/* A channel's vectors. */
typedef struct { const real *mean, *scale, *bias, *shift, *slope; } channel_vectors;

/* passed [opt] = d, what passed the gate; sum[c] = sum of d, product[c] = sum of d * (x - mean). */
static inline __attribute__((always_inline)) void gradient_sums(gate of, real *sum, real *product, real *passed, const real *dy, const real *x,
                                                                const real *y, channel_vectors v, int64_t rows, int64_t channels) {
  for (int64_t r = 0; r < rows; r++, dy += channels, x += channels, y += channels) {
#pragma omp simd
    for (int64_t k = 0; k < channels; k++) {
      real d = through(of, dy[k], x[k], y[k], v.mean[k], v.scale[k], v.bias[k]);
      if (passed) passed[k] = d;
      sum[k] += d;
      product[k] += d * (x[k] - v.mean[k]);
    }
    if (passed) passed += channels;
  }
}
static void block_gradients(gate of, real *sum, real *product, real *passed, const real *dy, const real *x, const real *y, channel_vectors v,
                            int64_t rows, int64_t channels) {
  memset(sum, 0, (size_t)channels * sizeof *sum);
  memset(product, 0, (size_t)channels * sizeof *product);
  if (of == BY_INPUT) gradient_sums(BY_INPUT, sum, product, NULL, dy, x, y, v, rows, channels);
  else if (of == BY_RESULT && passed) gradient_sums(BY_RESULT, sum, product, passed, dy, x, y, v, rows, channels);
  else if (of == BY_RESULT) gradient_sums(BY_RESULT, sum, product, NULL, dy, x, y, v, rows, channels);
  else if (passed) gradient_sums(OPEN, sum, product, passed, dy, x, y, v, rows, channels);
  else gradient_sums(OPEN, sum, product, NULL, dy, x, y, v, rows, channels);
}

/* dx = d * scale - shift - (x - mean) * slope, where d passed the gate. */
static inline __attribute__((always_inline)) void rows_back(gate of, real *dx, const real *dy, const real *x, const real *y, channel_vectors v,
                                                            int64_t rows, int64_t channels) {
  for (int64_t r = 0; r < rows; r++, dx += channels, dy += channels, x += channels, y += channels)
#pragma omp simd
    for (int64_t k = 0; k < channels; k++) {
      real d = through(of, dy[k], x[k], y[k], v.mean[k], v.scale[k], v.bias[k]);
      dx[k] = d * v.scale[k] - v.shift[k] - (x[k] - v.mean[k]) * v.slope[k];
    }
}
static void input_gradients(gate of, real *dx, const real *dy, const real *x, const real *y, channel_vectors v, int64_t rows, int64_t channels) {
  if (of == OPEN) rows_back(OPEN, dx, dy, x, y, v, rows, channels);
  else if (of == BY_RESULT) rows_back(BY_RESULT, dx, dy, x, y, v, rows, channels);
  else rows_back(BY_INPUT, dx, dy, x, y, v, rows, channels);
}

/* The gradient of the result as it comes: dy, dy + more, or what dy is before the pooling that followed. What is not there yet is put together at
 * `to`, a block at a time. */
typedef struct { const real *dy, *more; const uint8_t *index; const ty_windows *pool; } incoming;
static void put_together(const incoming *of, real *to, int64_t row, int64_t rows, int64_t channels) {
  if (of->pool) {
    ty_pool_back(of->pool, to, of->dy, of->index, row, rows);
    return;
  }
  const real *dy = of->dy + row * channels, *more = of->more + row * channels;
  for (int64_t i = 0; i < rows * channels; i++) to[i] = dy[i] + more[i];
}

/* What both entries below share; result: NULL where the mask follows from x. */
typedef struct { ty_tensor *dx, *dweight, *dbias, *dresidual; } gradients;
typedef struct { const ty_tensor *x, *result, *weight, *bias, *mean, *rstd; } saved;
static int back(gradients to, incoming dy, saved from, grid g, int relu, int fixed) {
  int64_t channels = g.channels, bytes = (2 * g.blocks + 3) * channels * (int64_t)sizeof(real);
  real *parts = ty_alloc(bytes), *scale = parts + 2 * g.blocks * channels, *shift = scale + channels, *slope = shift + channels;
  if (!parts) return ty_no_scratch("batch_norm_back", bytes);
  const real *w = from.weight->data, *s = from.rstd->data, *in = from.x->data, *result = from.result ? from.result->data : in;
  real *dx = to.dx->data, *passed = to.dresidual ? to.dresidual->data : NULL;
  const int is_in_parts = dy.pool || dy.more; /* dx holds it until the second pass has read it */
  const real *whole = is_in_parts ? dx : dy.dy;
  const channel_vectors of = {from.mean->data, scale, from.bias->data, shift, slope};
  const gate open = !relu ? OPEN : from.result ? BY_RESULT : BY_INPUT;
  scales_of(scale, from.weight, from.rstd);
#pragma omp parallel if (ty_numel(from.x) > TY_PARALLEL)
  {
#pragma omp for
    for (int64_t b = 0; b < g.blocks; b++) {
      if (ty_is_unwanted()) continue;
      int64_t row = b * g.block_rows, at = row * channels, rows = rows_in(&g, b);
      if (is_in_parts) put_together(&dy, dx + at, row, rows, channels);
      block_gradients(open, parts + 2 * b * channels, parts + (2 * b + 1) * channels, passed ? passed + at : NULL, whole + at, in + at, result + at,
                      of, rows, channels);
    }
#pragma omp for
    for (int64_t k = 0; k < channels; k++) {
      double sum = 0, product = 0, share = fixed || g.rows == 0 ? 0 : 1 / (double)g.rows;
      for (int64_t b = 0; b < g.blocks; b++) {
        sum += parts[2 * b * channels + k];
        product += parts[(2 * b + 1) * channels + k];
      }
      ((real *)to.dbias->data)[k] = (real)sum;
      ((real *)to.dweight->data)[k] = (real)(product * s[k]);
      shift[k] = (real)(w[k] * s[k] * sum * share);
      slope[k] = (real)((double)w[k] * s[k] * s[k] * s[k] * product * share);
    }
#pragma omp for
    for (int64_t b = 0; b < g.blocks; b++) {
      if (ty_is_unwanted()) continue;
      int64_t at = b * g.block_rows * channels;
      /* What passed is one tensor to read instead of two. */
      input_gradients(passed ? OPEN : open, dx + at, (passed ? passed : whole) + at, in + at, result + at, of, rows_in(&g, b), channels);
    }
  }
  ty_free(parts, bytes);
  return 0;
}

int ty_batch_norm_back(ty_tensor *dx, ty_tensor *dweight, ty_tensor *dbias, ty_tensor *dresidual, const ty_tensor *dy, const ty_tensor *more,
                       const ty_tensor *x, const ty_tensor *y, const ty_tensor *weight, const ty_tensor *bias, const ty_tensor *mean,
                       const ty_tensor *rstd, int relu, int fixed) {
  ty_matrix size;
  TY_TRY(ty_accept_batch_norm_back(&size, dx, dweight, dbias, dresidual, dy, more, x, y, weight, bias, mean, rstd));
  return back((gradients){dx, dweight, dbias, dresidual}, (incoming){.dy = dy->data, .more = more ? more->data : NULL},
              (saved){x, y, weight, bias, mean, rstd}, grid_of(size.rows, size.columns), relu, fixed);
}

int ty_batch_norm_pool_back(ty_tensor *dx, ty_tensor *dweight, ty_tensor *dbias, const ty_tensor *dy, const ty_tensor *index, const ty_tensor *x,
                            const ty_tensor *weight, const ty_tensor *bias, const ty_tensor *mean, const ty_tensor *rstd, int relu, int fixed,
                            int kernel, int stride, int padding) {
  ty_matrix size;
  TY_TRY(ty_accept_batch_norm_pool_back(&size, dx, dweight, dbias, dy, index, x, weight, bias, mean, rstd, kernel, stride, padding));
  ty_windows s = ty_windows_of(x, dy, kernel, stride, padding);
  return back((gradients){dx, dweight, dbias, NULL}, (incoming){.dy = dy->data, .index = index->data, .pool = &s},
              (saved){x, NULL, weight, bias, mean, rstd}, grid_of(size.rows, size.columns), relu, fixed);
}
