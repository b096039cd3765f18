/* Copies between any dtypes and memory orders, and filling. */
#include "accept.h"
#include "half.h"

typedef uint16_t half;
typedef uint16_t brain;

/* A value of each type as one that C converts, and back. */
#define FROM_float(v) (v)
#define FROM_double(v) (v)
#define FROM_int64_t(v) (v)
#define FROM_int32_t(v) (v)
#define FROM_uint8_t(v) (v)
#define FROM_half(v) ty_from_half(v)
#define FROM_brain(v) ty_from_brain(v)
#define TO_float(v) (float)(v)
#define TO_double(v) (double)(v)
#define TO_int64_t(v) (int64_t)(v)
#define TO_int32_t(v) (int32_t)(v)
#define TO_uint8_t(v) (uint8_t)(v)
#define TO_half(v) ty_to_half((float)(v))
#define TO_brain(v) ty_to_brain((float)(v))

#define PAIR(to, from)                                                                       \
  static void to##_from_##from(int64_t n, void *const *p, const int64_t *s) {                \
    to *y = p[0];                                                                            \
    const from *x = p[1];                                                                    \
    if (s[0] == 1 && s[1] == 1) {                                                            \
      for (int64_t i = 0; i < n; i++) y[i] = TO_##to(FROM_##from(x[i]));                     \
    } else if (s[0] == 1 && s[1] == 0) {                                                     \
      const to value = TO_##to(FROM_##from(x[0]));                                           \
      for (int64_t i = 0; i < n; i++) y[i] = value;                                          \
    } else {                                                                                 \
      for (int64_t i = 0; i < n; i++) y[i * s[0]] = TO_##to(FROM_##from(x[i * s[1]]));       \
    }                                                                                        \
  }
#define ALL_FROM(to)                                                                         \
  PAIR(to, float) PAIR(to, double) PAIR(to, int64_t) PAIR(to, int32_t) PAIR(to, uint8_t) PAIR(to, half) PAIR(to, brain)
#define ROW(to)                                                                              \
  {to##_from_float, to##_from_double, to##_from_int64_t, to##_from_int32_t, to##_from_uint8_t, to##_from_half, to##_from_brain}

ALL_FROM(float)
ALL_FROM(double)
ALL_FROM(int64_t)
ALL_FROM(int32_t)
ALL_FROM(uint8_t)
ALL_FROM(half)
ALL_FROM(brain)

/* Indexed by the dtypes of y and x. */
static const ty_row_loop loops[7][7] = {ROW(float), ROW(double), ROW(int64_t), ROW(int32_t), ROW(uint8_t), ROW(half), ROW(brain)};

/* ---- transposes of real tensors ---- */

enum { TILE = 64 };

/* y (columns, rows) at row distance y_step = x (rows, columns) at row distance x_step, transposed; both of unit stride. */
static void transpose_tile(real *restrict y, int64_t y_step, const real *restrict x, int64_t x_step, int64_t rows, int64_t columns) {
  enum { W = 64 / sizeof(real) }; /* a cache line: each is written once, whole */
  int64_t i = 0;
  for (; i + W <= rows; i += W) {
    int64_t j = 0;
    for (; j + W <= columns; j += W) {
      real block[W][W];
      for (int r = 0; r < W; r++)
        for (int c = 0; c < W; c++) block[c][r] = x[(i + r) * x_step + j + c];
      for (int c = 0; c < W; c++) memcpy(y + (j + c) * y_step + i, block[c], sizeof block[c]);
    }
    for (; j < columns; j++)
      for (int r = 0; r < W; r++) y[j * y_step + i + r] = x[(i + r) * x_step + j];
  }
  for (; i < rows; i++)
    for (int64_t j = 0; j < columns; j++) y[j * y_step + i] = x[i * x_step + j];
}

/* The dim along which t has unit stride, or -1. */
static int unit_dim(const ty_tensor *t) {
  for (int i = t->ndim - 1; i >= 0; i--)
    if (t->shape[i] > 1 && t->stride[i] == 1) return i;
  return -1;
}

/* Copies tile by tile when both are real and have unit stride in different dims, where rows of either would miss the cache on the
 * other side. Returns whether it did. */
static int transposed(ty_tensor *y, const ty_tensor *x) {
  enum { SHORTEST = 8 };
  if (y->dtype != TY_REAL || x->dtype != TY_REAL || !ty_same_shape(y, x)) return 0;
  int r = unit_dim(y), c = unit_dim(x);
  if (r < 0 || c < 0 || r == c || x->shape[c] < SHORTEST) return 0;
  int64_t rows = x->shape[r], columns = x->shape[c], outer = 1;
  for (int i = 0; i < x->ndim; i++)
    if (i != r && i != c) outer *= x->shape[i];
  int64_t down = (rows + TILE - 1) / TILE, across = (columns + TILE - 1) / TILE;
#pragma omp parallel for schedule(static) if (rows * columns * outer >= TY_PARALLEL)
  for (int64_t task = 0; task < outer * down * across; task++) {
    if (ty_is_unwanted()) continue;
    int64_t i = task / across % down * TILE, j = task % across * TILE, at = task / (across * down);
    real *to = (real *)y->data + i * y->stride[r] + j * y->stride[c];
    const real *from = (const real *)x->data + i * x->stride[r] + j * x->stride[c];
    for (int d = x->ndim - 1; d >= 0; d--) {
      if (d == r || d == c) continue;
      to += at % x->shape[d] * y->stride[d];
      from += at % x->shape[d] * x->stride[d];
      at /= x->shape[d];
    }
    transpose_tile(to, y->stride[c], from, x->stride[r], rows - i < TILE ? rows - i : TILE, columns - j < TILE ? columns - j : TILE);
  }
  return 1;
}

int ty_copy(ty_tensor *y, const ty_tensor *x) {
  TY_TRY(ty_accept_copy(y, x));
  if (transposed(y, x)) return 0;
  return ty_strided("copy", loops[y->dtype][x->dtype], y, &x, 1);
}

int ty_fill(ty_tensor *y, double value) {
  ty_tensor x = {.data = &value, .ndim = 0, .dtype = TY_F64};
  return ty_copy(y, &x);
}
