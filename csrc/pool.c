/* Pooling of channels-last images: max with the winner's place saved for backward, and the global average. */
#include "accept.h"

/* Channels are taken in blocks that stay in registers; a whole block has loops of constant length. */
enum { BLOCK = 16 };
#define INLINE static inline __attribute__((always_inline))
#ifdef TYCHO_DOUBLE
typedef int64_t place; /* as wide as real, so that both fill a register alike */
#else
typedef int32_t place;
#endif

static int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

/* A window's pixels: rows x columns exist, the first of them at place `first` of a kernel x kernel window. */
typedef struct { int64_t rows, columns, row_step, column_step, first, kernel; } window;

/* y, index = maximum over the window at x of n channels. NaN wins, as in PyTorch. */
INLINE void max_of(real *y, uint8_t *index, const real *x, const window *at, int64_t n) {
  real best[BLOCK];
  place where[BLOCK];
#pragma omp simd
  for (int64_t c = 0; c < n; c++) {
    best[c] = x[c];
    where[c] = (place)at->first;
  }
  for (int64_t i = 0; i < at->rows; i++)
    for (int64_t j = 0; j < at->columns; j++) {
      const real *pixel = x + i * at->row_step + j * at->column_step;
      place here = (place)(at->first + i * at->kernel + j);
#pragma omp simd
      for (int64_t c = 0; c < n; c++) {
        real v = pixel[c];
        int wins = (v > best[c]) | (v != v);
        best[c] = wins ? v : best[c];
        where[c] = wins ? here : where[c];
      }
    }
#pragma omp simd
  for (int64_t c = 0; c < n; c++) y[c] = best[c];
#pragma omp simd
  for (int64_t c = 0; c < n; c++) index[c] = (uint8_t)where[c];
}

int ty_max_pool2d(ty_tensor *y, ty_tensor *index, const ty_tensor *x, int kernel, int stride, int padding) {
  TY_TRY(ty_accept_window("max_pool2d", "y", y, index, "x", x, kernel, stride, padding));
  int64_t n = x->shape[0], c = x->shape[1], h = x->shape[2], w = x->shape[3], oh = y->shape[2], ow = y->shape[3];
  const real *from = x->data;
  real *to = y->data;
  uint8_t *places = index->data;
#pragma omp parallel for if (ty_numel(x) > TY_PARALLEL)
  for (int64_t r = 0; r < n * oh; r++) {
    if (ty_is_unwanted()) continue;
    int64_t top = r % oh * stride - padding, i0 = max(0, -top), i1 = min(kernel, h - top);
    for (int64_t q = 0; q < ow; q++) {
      int64_t left = q * stride - padding, j0 = max(0, -left), j1 = min(kernel, w - left);
      const real *first = from + ((r / oh * h + top + i0) * w + left + j0) * c;
      window at = {i1 - i0, j1 - j0, w * c, c, i0 * kernel + j0, kernel};
      int64_t pixel = (r * ow + q) * c, k = 0;
      for (; k + BLOCK <= c; k += BLOCK) max_of(to + pixel + k, places + pixel + k, first + k, &at, BLOCK);
      if (k < c) max_of(to + pixel + k, places + pixel + k, first + k, &at, c - k);
    }
  }
  return 0;
}

/* dx = sum of dy over the windows whose winner is this pixel: the first window sees it at place `first`, and the place falls by the
 * stride from window to window. */
INLINE void collect(real *dx, const real *dy, const uint8_t *index, const window *at, int64_t stride, int64_t n) {
  real sum[BLOCK];
#pragma omp simd
  for (int64_t c = 0; c < n; c++) sum[c] = 0;
  for (int64_t i = 0; i < at->rows; i++)
    for (int64_t j = 0; j < at->columns; j++) {
      int64_t offset = i * at->row_step + j * at->column_step;
      place here = (place)(at->first - (i * at->kernel + j) * stride);
      place winner[BLOCK]; /* widened first: loops of mixed widths fill a quarter of a register */
      for (int64_t c = 0; c < n; c++) winner[c] = index[offset + c];
#pragma omp simd
      for (int64_t c = 0; c < n; c++) {
        real d = dy[offset + c];
        sum[c] += winner[c] == here ? d : 0;
      }
    }
#pragma omp simd
  for (int64_t c = 0; c < n; c++) dx[c] = sum[c];
}

/* Each input pixel collects from the windows that contain it, so no two threads write to one place. */
int ty_max_pool2d_back(ty_tensor *dx, const ty_tensor *dy, const ty_tensor *index, int kernel, int stride, int padding) {
  TY_TRY(ty_accept_window("max_pool2d_back", "dy", dy, index, "dx", dx, kernel, stride, padding));
  int64_t n = dx->shape[0], c = dx->shape[1], h = dx->shape[2], w = dx->shape[3], oh = dy->shape[2], ow = dy->shape[3];
  const real *from = dy->data;
  real *to = dx->data;
  const uint8_t *places = index->data;
#pragma omp parallel for if (ty_numel(dx) > TY_PARALLEL)
  for (int64_t r = 0; r < n * h; r++) {
    if (ty_is_unwanted()) continue;
    int64_t row = r % h + padding, i0 = row < kernel ? 0 : (row - kernel) / stride + 1, i1 = min(oh, row / stride + 1);
    for (int64_t q = 0; q < w; q++) {
      int64_t column = q + padding, j0 = column < kernel ? 0 : (column - kernel) / stride + 1, j1 = min(ow, column / stride + 1);
      window at = {i1 - i0, j1 - j0, ow * c, c, (row - i0 * stride) * kernel + column - j0 * stride, kernel};
      int64_t first = ((r / h * oh + i0) * ow + j0) * c, pixel = (r * w + q) * c, k = 0;
      for (; k + BLOCK <= c; k += BLOCK) collect(to + pixel + k, from + first + k, places + first + k, &at, stride, BLOCK);
      if (k < c) collect(to + pixel + k, from + first + k, places + first + k, &at, stride, c - k);
    }
  }
  return 0;
}

int ty_avg_pool2d(ty_tensor *y, const ty_tensor *x) {
  TY_TRY(ty_accept_average("avg_pool2d", "y", y, "x", x));
  int64_t n = x->shape[0], c = x->shape[1], pixels = x->shape[2] * x->shape[3];
  const real *from = x->data;
  real *to = y->data, scale = 1 / (real)pixels;
#pragma omp parallel for if (ty_numel(x) > TY_PARALLEL)
  for (int64_t i = 0; i < n; i++) {
    if (ty_is_unwanted()) continue;
    real *sum = to + i * c;
    memset(sum, 0, (size_t)c * sizeof *sum);
    for (int64_t p = 0; p < pixels; p++) {
      const real *at = from + (i * pixels + p) * c;
#pragma omp simd
      for (int64_t k = 0; k < c; k++) sum[k] += at[k];
    }
    for (int64_t k = 0; k < c; k++) sum[k] *= scale;
  }
  return 0;
}

int ty_avg_pool2d_back(ty_tensor *dx, const ty_tensor *dy) {
  TY_TRY(ty_accept_average("avg_pool2d_back", "dy", dy, "dx", dx));
  int64_t n = dx->shape[0], c = dx->shape[1], pixels = dx->shape[2] * dx->shape[3];
  const real *from = dy->data;
  real *to = dx->data, scale = 1 / (real)pixels;
#pragma omp parallel for if (ty_numel(dx) > TY_PARALLEL)
  for (int64_t i = 0; i < n; i++)
    for (int64_t p = 0; p < pixels && !ty_is_unwanted(); p++) {
      real *at = to + (i * pixels + p) * c;
#pragma omp simd
      for (int64_t k = 0; k < c; k++) at[k] = from[i * c + k] * scale;
    }
  return 0;
}
