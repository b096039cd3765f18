/* Batch normalisation with the residual addition and the ReLU of a ResNet block fused in, and layer normalisation. Sums run over fixed blocks of
 * rows, so results do not depend on the number of threads. */
#include "internal.h"

enum { ROWS = 256 };

/* ---- per-channel sums over rows of C values ---- */

/* Adds the sums of `lanes` quantities per channel over rows [first, last) to out (lanes, C). */
typedef void (*block_sum)(const void *context, int64_t first, int64_t last, real *out);

/* total (lanes, C) in double = the block sums in order. scratch errors are the caller's. */
static int sum_channels(double *total, int lanes, int64_t rows, int64_t C, block_sum sum, const void *context) {
  int64_t blocks = (rows + ROWS - 1) / ROWS, width = lanes * C, bytes = blocks * width * (int64_t)sizeof(real);
  real *partial = ty_alloc(bytes);
  if (!partial) return ty_fail("batch_norm: out of memory for %lld bytes", (long long)bytes);
#pragma omp parallel for schedule(static) if (rows * C >= TY_PARALLEL)
  for (int64_t b = 0; b < blocks; b++) {
    real *out = partial + b * width;
    memset(out, 0, (size_t)width * sizeof(real));
    sum(context, b * ROWS, (b + 1) * ROWS < rows ? (b + 1) * ROWS : rows, out);
  }
  for (int64_t i = 0; i < width; i++) total[i] = 0;
  for (int64_t b = 0; b < blocks; b++)
    for (int64_t i = 0; i < width; i++) total[i] += partial[b * width + i];
  ty_free(partial, bytes);
  return 0;
}

/* Sums of x - shift and of its square; a shift near the mean keeps the digits of the variance. */
typedef struct moments { const real *x, *shift; int64_t C; } moments;
static void sum_moments(const void *context, int64_t first, int64_t last, real *out) {
  const moments *m = context;
  for (int64_t r = first; r < last; r++) {
    const real *x = m->x + r * m->C;
#pragma omp simd
    for (int64_t c = 0; c < m->C; c++) {
      real d = x[c] - m->shift[c];
      out[c] += d;
      out[m->C + c] += d * d;
    }
  }
}

/* Sums of g and of g * (x - mean), where g is dy behind the ReLU. */
typedef struct gradients { const real *dy, *x, *y, *mean; int64_t C; } gradients;
static void sum_gradients(const void *context, int64_t first, int64_t last, real *out) {
  const gradients *s = context;
  for (int64_t r = first; r < last; r++) {
    const real *dy = s->dy + r * s->C, *x = s->x + r * s->C, *y = s->y ? s->y + r * s->C : NULL;
#pragma omp simd
    for (int64_t c = 0; c < s->C; c++) {
      real g = y && !(y[c] > 0) ? 0 : dy[c];
      out[c] += g;
      out[s->C + c] += g * (x[c] - s->mean[c]);
    }
  }
}

/* ---- batch norm ---- */

static int check_channels(const char *op, const char *arg, const ty_tensor *t, int64_t C) {
  TY_TRY(ty_check_dense(op, arg, t, TY_REAL, 1));
  return ty_check_size(op, arg, t, 0, C);
}

static int check_input(const char *op, const ty_tensor *x, const ty_tensor *y, const ty_tensor *other) {
  TY_TRY(x->ndim == 2 ? ty_check_dense(op, "x", x, TY_REAL, 2) : ty_check_image(op, "x", x));
  TY_TRY(ty_check_real(op, "y", y));
  if (!ty_same_layout(x, y)) return ty_fail("%s: y %s must have x's shape %s and memory order", op, ty_shape_text(y), ty_shape_text(x));
  if (other) {
    TY_TRY(ty_check_real(op, "residual", other));
    if (!ty_same_layout(x, other)) return ty_fail("%s: residual %s must have x's shape %s and memory order", op, ty_shape_text(other), ty_shape_text(x));
  }
  return 0;
}

/* y = act(x * scale + offset + residual) */
static void apply(real *y, const real *x, const real *residual, const real *scale, const real *offset, int relu, int64_t rows, int64_t C) {
#pragma omp parallel for schedule(static) if (rows * C >= TY_PARALLEL)
  for (int64_t r = 0; r < rows; r++) {
    const real *in = x + r * C, *more = residual ? residual + r * C : NULL;
    real *out = y + r * C;
#pragma omp simd
    for (int64_t c = 0; c < C; c++) {
      real v = in[c] * scale[c] + offset[c] + (more ? more[c] : 0);
      out[c] = relu && v < 0 ? 0 : v;
    }
  }
}

int ty_batch_norm(ty_tensor *y, ty_tensor *mean, ty_tensor *rstd, ty_tensor *running_mean, ty_tensor *running_var, const ty_tensor *x,
                  const ty_tensor *weight, const ty_tensor *bias, const ty_tensor *residual, int relu, double momentum, double eps) {
  const char *op = "batch_norm";
  TY_TRY(check_input(op, x, y, residual));
  int64_t C = x->shape[1], rows = C ? ty_numel(x) / C : 0;
  TY_TRY(check_channels(op, "weight", weight, C));
  TY_TRY(check_channels(op, "bias", bias, C));
  TY_TRY(check_channels(op, "mean", mean, C));
  TY_TRY(check_channels(op, "rstd", rstd, C));
  if (running_mean) TY_TRY(check_channels(op, "running_mean", running_mean, C));
  if (running_var) TY_TRY(check_channels(op, "running_var", running_var, C));
  if (rows < 2) return ty_fail("%s: training needs more than one value per channel, got x %s", op, ty_shape_text(x));
  real scale[C], offset[C], *m = mean->data, *s = rstd->data;
  double total[2 * C];
  const real *in = x->data, *w = weight->data, *b = bias->data;
  TY_TRY(sum_channels(total, 2, rows, C, sum_moments, &(moments){in, in, C}));
  for (int64_t c = 0; c < C; c++) {
    double d = total[c] / (double)rows, centre = in[c] + d;
    m[c] = (real)centre;
  }
  /* Sums about the mean itself: the first row may have been far from it. */
  TY_TRY(sum_channels(total, 2, rows, C, sum_moments, &(moments){in, m, C}));
  for (int64_t c = 0; c < C; c++) {
    double d = total[c] / (double)rows, variance = total[C + c] / (double)rows - d * d;
    if (variance < 0) variance = 0;
    s[c] = (real)(1 / sqrt(variance + eps));
    if (running_mean) ((real *)running_mean->data)[c] += (real)(momentum * (m[c] - ((real *)running_mean->data)[c]));
    if (running_var) {
      double unbiased = variance * (double)rows / (double)(rows - 1);
      ((real *)running_var->data)[c] += (real)(momentum * (unbiased - ((real *)running_var->data)[c]));
    }
    scale[c] = s[c] * w[c];
    offset[c] = b[c] - m[c] * scale[c];
  }
  apply(y->data, in, residual ? residual->data : NULL, scale, offset, relu, rows, C);
  return 0;
}

int ty_batch_norm_eval(ty_tensor *y, const ty_tensor *x, const ty_tensor *weight, const ty_tensor *bias, const ty_tensor *running_mean,
                       const ty_tensor *running_var, const ty_tensor *residual, int relu, double eps) {
  const char *op = "batch_norm";
  TY_TRY(check_input(op, x, y, residual));
  int64_t C = x->shape[1], rows = C ? ty_numel(x) / C : 0;
  TY_TRY(check_channels(op, "weight", weight, C));
  TY_TRY(check_channels(op, "bias", bias, C));
  TY_TRY(check_channels(op, "running_mean", running_mean, C));
  TY_TRY(check_channels(op, "running_var", running_var, C));
  real scale[C], offset[C];
  for (int64_t c = 0; c < C; c++) {
    scale[c] = (real)(((const real *)weight->data)[c] / sqrt(((const real *)running_var->data)[c] + eps));
    offset[c] = ((const real *)bias->data)[c] - ((const real *)running_mean->data)[c] * scale[c];
  }
  apply(y->data, x->data, residual ? residual->data : NULL, scale, offset, relu, rows, C);
  return 0;
}

int ty_batch_norm_back(ty_tensor *dx, ty_tensor *dweight, ty_tensor *dbias, ty_tensor *dresidual, const ty_tensor *dy, const ty_tensor *x,
                       const ty_tensor *y, const ty_tensor *weight, const ty_tensor *mean, const ty_tensor *rstd, int relu, int fixed) {
  const char *op = "batch_norm backward";
  TY_TRY(check_input(op, x, dx, dresidual));
  TY_TRY(check_input(op, x, dy, y));
  int64_t C = x->shape[1], rows = C ? ty_numel(x) / C : 0;
  const ty_tensor *vectors[] = {dweight, dbias, weight, mean, rstd};
  for (int i = 0; i < 5; i++) TY_TRY(check_channels(op, "a channel vector", vectors[i], C));
  const real *m = mean->data, *s = rstd->data, *w = weight->data, *g = dy->data, *in = x->data, *result = relu ? y->data : NULL;
  double total[2 * C];
  TY_TRY(sum_channels(total, 2, rows, C, sum_gradients, &(gradients){g, in, result, m, C}));
  real scale[C], slope[C], constant[C];
  for (int64_t c = 0; c < C; c++) {
    ((real *)dbias->data)[c] = (real)total[c];
    ((real *)dweight->data)[c] = (real)(total[C + c] * s[c]);
    scale[c] = w[c] * s[c];
    slope[c] = fixed ? 0 : (real)(total[C + c] * s[c] * s[c] / (double)rows) * scale[c];
    constant[c] = fixed ? 0 : (real)(total[c] / (double)rows) * scale[c];
  }
  real *out = dx->data, *more = dresidual ? dresidual->data : NULL;
#pragma omp parallel for schedule(static) if (rows * C >= TY_PARALLEL)
  for (int64_t r = 0; r < rows; r++) {
    int64_t at = r * C;
#pragma omp simd
    for (int64_t c = 0; c < C; c++) {
      real v = result && !(result[at + c] > 0) ? 0 : g[at + c];
      out[at + c] = v * scale[c] - constant[c] - (in[at + c] - m[c]) * slope[c];
      if (more) more[at + c] = v;
    }
  }
  return 0;
}

/* ---- layer norm ---- */

static int check_layer(const char *op, const ty_tensor *x, const ty_tensor *y, const ty_tensor *weight, const ty_tensor *mean, const ty_tensor *rstd,
                       int64_t *rows, int64_t *D) {
  TY_TRY(ty_check_dense(op, "x", x, TY_REAL, -1));
  TY_TRY(ty_check_dense(op, "y", y, TY_REAL, x->ndim));
  if (x->ndim < 1 || !ty_same_shape(x, y)) return ty_fail("%s: x %s and y %s must have one shape", op, ty_shape_text(x), ty_shape_text(y));
  *D = x->shape[x->ndim - 1];
  *rows = *D ? ty_numel(x) / *D : 0;
  TY_TRY(check_channels(op, "weight", weight, *D));
  TY_TRY(check_channels(op, "mean", mean, *rows));
  return check_channels(op, "rstd", rstd, *rows);
}

int ty_layer_norm(ty_tensor *y, ty_tensor *mean, ty_tensor *rstd, const ty_tensor *x, const ty_tensor *weight, const ty_tensor *bias, double eps) {
  int64_t rows, D;
  TY_TRY(check_layer("layer_norm", x, y, weight, mean, rstd, &rows, &D));
  TY_TRY(check_channels("layer_norm", "bias", bias, D));
  const real *w = weight->data, *b = bias->data;
#pragma omp parallel for schedule(static) if (rows * D >= TY_PARALLEL)
  for (int64_t r = 0; r < rows; r++) {
    const real *in = (const real *)x->data + r * D;
    real *out = (real *)y->data + r * D;
    double sum = 0, square = 0;
    for (int64_t i = 0; i < D; i++) sum += in[i];
    real m = (real)(sum / (double)D);
    for (int64_t i = 0; i < D; i++) square += (double)(in[i] - m) * (in[i] - m);
    real s = (real)(1 / sqrt(square / (double)D + eps));
    for (int64_t i = 0; i < D; i++) out[i] = (in[i] - m) * s * w[i] + b[i];
    ((real *)mean->data)[r] = m;
    ((real *)rstd->data)[r] = s;
  }
  return 0;
}

int ty_layer_norm_back(ty_tensor *dx, ty_tensor *dweight, ty_tensor *dbias, const ty_tensor *dy, const ty_tensor *x, const ty_tensor *weight,
                       const ty_tensor *mean, const ty_tensor *rstd) {
  const char *op = "layer_norm backward";
  int64_t rows, D;
  TY_TRY(check_layer(op, x, dx, weight, mean, rstd, &rows, &D));
  TY_TRY(ty_check_dense(op, "dy", dy, TY_REAL, x->ndim));
  TY_TRY(check_channels(op, "dweight", dweight, D));
  TY_TRY(check_channels(op, "dbias", dbias, D));
  const real *w = weight->data, *in = x->data, *g = dy->data, *m = mean->data, *s = rstd->data;
  int64_t blocks = (rows + ROWS - 1) / ROWS, bytes = blocks * 2 * D * (int64_t)sizeof(real);
  real *partial = ty_alloc(bytes);
  if (!partial) return ty_fail("%s: out of memory for %lld bytes", op, (long long)bytes);
#pragma omp parallel for schedule(static) if (rows * D >= TY_PARALLEL)
  for (int64_t block = 0; block < blocks; block++) {
    real *gw = partial + block * 2 * D, *gb = gw + D;
    memset(gw, 0, (size_t)(2 * D) * sizeof(real));
    int64_t last = (block + 1) * ROWS < rows ? (block + 1) * ROWS : rows;
    for (int64_t r = block * ROWS; r < last; r++) {
      const real *xr = in + r * D, *gr = g + r * D;
      real *out = (real *)dx->data + r * D;
      double dot = 0, sum = 0;
      for (int64_t i = 0; i < D; i++) {
        real normal = (xr[i] - m[r]) * s[r], scaled = gr[i] * w[i];
        gw[i] += gr[i] * normal;
        gb[i] += gr[i];
        dot += scaled * normal;
        sum += scaled;
      }
      real a = (real)(dot / (double)D), b = (real)(sum / (double)D);
      for (int64_t i = 0; i < D; i++) out[i] = (gr[i] * w[i] - b - (xr[i] - m[r]) * s[r] * a) * s[r];
    }
  }
  for (int64_t i = 0; i < D; i++) {
    double tw = 0, tb = 0;
    for (int64_t block = 0; block < blocks; block++) tw += partial[block * 2 * D + i], tb += partial[block * 2 * D + D + i];
    ((real *)dweight->data)[i] = (real)tw;
    ((real *)dbias->data)[i] = (real)tb;
  }
  ty_free(partial, bytes);
  return 0;
}
