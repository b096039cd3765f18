/* Pooling of channels-last images: max with the winner's place saved for backward, and the global average. */
#include "accept.h"
#include "pool.h"

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

/* y, index = maximum over the window at x of n channels. */
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

ty_band ty_pool_band(const ty_windows *s, int64_t r) {
  int64_t top = r % s->oh * s->stride - s->padding;
  return (ty_band){max(0, top), min(s->h, top + s->kernel)};
}

void ty_pool_row(const ty_windows *s, int64_t r, real *y, uint8_t *index, const real *band) {
  ty_band rows = ty_pool_band(s, r);
  int64_t above = rows.first - (r % s->oh * s->stride - s->padding);
  for (int64_t q = 0; q < s->ow; q++) {
    int64_t left = q * s->stride - s->padding, j0 = max(0, -left), j1 = min(s->kernel, s->w - left);
    const real *first = band + (left + j0) * s->c;
    window at = {rows.end - rows.first, j1 - j0, s->w * s->c, s->c, above * s->kernel + j0, s->kernel};
    int64_t pixel = q * s->c, k = 0;
    for (; k + BLOCK <= s->c; k += BLOCK) max_of(y + pixel + k, index + pixel + k, first + k, &at, BLOCK);
    if (k < s->c) max_of(y + pixel + k, index + pixel + k, first + k, &at, s->c - k);
  }
}

int ty_max_pool2d(ty_tensor *y, ty_tensor *index, const ty_tensor *x, int kernel, int stride, int padding) {
  TY_TRY(ty_accept_window("max_pool2d", "y", y, index, "x", x, kernel, stride, padding));
  ty_windows s = ty_windows_of(x, y, kernel, stride, padding);
  int64_t pooled = s.ow * s.c;
#pragma omp parallel for if (ty_numel(x) > TY_PARALLEL)
  for (int64_t r = 0; r < s.n * s.oh; r++) {
    if (ty_is_unwanted()) continue;
    const real *band = (real *)x->data + (r / s.oh * s.h + ty_pool_band(&s, r).first) * s.w * s.c;
    ty_pool_row(&s, r, (real *)y->data + r * pooled, (uint8_t *)index->data + r * pooled, band);
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

void ty_pool_back(const ty_windows *s, real *dx, const real *dy, const uint8_t *index, int64_t first, int64_t count) {
  for (int64_t p = first; p < first + count; p++, dx += s->c) {
    int64_t r = p / s->w, row = r % s->h + s->padding, column = p % s->w + s->padding;
    int64_t i0 = row < s->kernel ? 0 : (row - s->kernel) / s->stride + 1, i1 = min(s->oh, row / s->stride + 1);
    int64_t j0 = column < s->kernel ? 0 : (column - s->kernel) / s->stride + 1, j1 = min(s->ow, column / s->stride + 1);
    window at = {i1 - i0, j1 - j0, s->ow * s->c, s->c, (row - i0 * s->stride) * s->kernel + column - j0 * s->stride, s->kernel};
    int64_t from = ((r / s->h * s->oh + i0) * s->ow + j0) * s->c, k = 0;
    for (; k + BLOCK <= s->c; k += BLOCK) collect(dx + k, dy + from + k, index + from + k, &at, s->stride, BLOCK);
    if (k < s->c) collect(dx + k, dy + from + k, index + from + k, &at, s->stride, s->c - k);
  }
}

/* Each pixel is one thread's, so no two threads write to one place. */
int ty_max_pool2d_back(ty_tensor *dx, const ty_tensor *dy, const ty_tensor *index, int kernel, int stride, int padding) {
  TY_TRY(ty_accept_window("max_pool2d_back", "dy", dy, index, "dx", dx, kernel, stride, padding));
  ty_windows s = ty_windows_of(dx, dy, kernel, stride, padding);
#pragma omp parallel for if (ty_numel(dx) > TY_PARALLEL)
  for (int64_t r = 0; r < s.n * s.h; r++) {
    if (ty_is_unwanted()) continue;
    ty_pool_back(&s, (real *)dx->data + r * s.w * s.c, dy->data, index->data, r * s.w, s.w);
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
