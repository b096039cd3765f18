/* Layer norm: each row by its own mean and variance. */
#include "accept.h"
#include "row_blocks.h"

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
    const real near = from[0]; /* the mean of equal numbers is to be that number: its rounding would be multiplied by up to 1 / sqrt(eps) */
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < g.channels; k++) sum += from[k] - near;
    real m = near + sum / (real)g.channels;
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
