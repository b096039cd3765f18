/* Register-blocked inner loops of the float convolutions, over panels of 16 output channels.
 * Written with the compiler's vector types, so that one source serves every instruction set. Each loop is a function of its own, with
 * every small loop unrolled: only so do the sums stay in registers. */
#ifndef TYCHO_PANEL_H
#define TYCHO_PANEL_H
#include <stdint.h>
#include <string.h>

/* LANES floats fill a register. PIXELS, or ROWS, times a panel are the sums that stay in registers. */
#if defined(__AVX512F__)
enum { LANES = 16, PIXELS = 12, ROWS = 8 };
#elif defined(__AVX__)
enum { LANES = 8, PIXELS = 6, ROWS = 6 };
#elif defined(__aarch64__)
enum { LANES = 4, PIXELS = 6, ROWS = 6 };
#else
enum { LANES = 4, PIXELS = 2, ROWS = 2 };
#endif
enum { PANEL = 16, VECTORS = PANEL / LANES };
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
#define PANEL_INLINE static inline __attribute__((always_inline))
#define PANEL_LOOP static __attribute__((noinline))
#define UNROLL _Pragma("GCC unroll 16")

static inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t panels_of(int64_t channels) { return (channels + PANEL - 1) / PANEL; }

/* to[c][0..8) = from[0..8)[c] for c in [0, 8): an 8x8 transposition; steps are floats between rows. */
typedef float eight __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t eight_places __attribute__((vector_size(32)));
static inline void transpose8(float *to, int64_t to_step, const float *from, int64_t from_step) {
  const eight_places low = {0, 8, 1, 9, 4, 12, 5, 13}, high = {2, 10, 3, 11, 6, 14, 7, 15};
  const eight_places left = {0, 1, 8, 9, 4, 5, 12, 13}, right = {2, 3, 10, 11, 6, 7, 14, 15};
  const eight_places first = {0, 1, 2, 3, 8, 9, 10, 11}, second = {4, 5, 6, 7, 12, 13, 14, 15};
  eight a[8], b[8];
  UNROLL for (int i = 0; i < 8; i++) a[i] = *(const eight *)(from + i * from_step);
  UNROLL for (int i = 0; i < 8; i += 2) {
    b[i] = __builtin_shuffle(a[i], a[i + 1], low);
    b[i + 1] = __builtin_shuffle(a[i], a[i + 1], high);
  }
  UNROLL for (int i = 0; i < 8; i += 4)
    UNROLL for (int j = 0; j < 2; j++) {
      a[i + 2 * j] = __builtin_shuffle(b[i + j], b[i + j + 2], left);
      a[i + 2 * j + 1] = __builtin_shuffle(b[i + j], b[i + j + 2], right);
    }
  UNROLL for (int i = 0; i < 4; i++) {
    *(eight *)(to + i * to_step) = __builtin_shuffle(a[i], a[i + 4], first);
    *(eight *)(to + (i + 4) * to_step) = __builtin_shuffle(a[i], a[i + 4], second);
  }
}

/* to[o][r] = or, when add, += from[r][o] for `rows` rows and `width` outputs; step is the distance of outputs in to. */
static inline void panel_store(float *to, int64_t step, const float *from, int64_t rows, int64_t width, int add) {
  float block[8][8];
  int64_t whole = width == PANEL ? rows / 8 * 8 : 0;
  for (int64_t r = 0; r < whole; r += 8)
    for (int64_t o = 0; o < PANEL; o += 8) {
      transpose8(block[0], 8, from + r * PANEL + o, PANEL);
      for (int64_t l = 0; l < 8; l++) {
        eight *at = (eight *)(to + (o + l) * step + r);
        *at = *(const eight *)block[l] + (add ? *at : (eight){0});
      }
    }
  for (int64_t o = 0; o < width; o++)
    for (int64_t r = whole; r < rows; r++) to[o * step + r] = from[r * PANEL + o] + (add ? to[o * step + r] : 0);
}

/* What one dot product runs over: `rows` runs of `run` values; the next run of a is a_row floats on, of b b_row floats. */
typedef struct { int64_t rows, run, a_row, b_row; } dot_depth;

PANEL_INLINE void panel_dot_of(int pixels, float *const *y, int64_t y_at, const float *const *a, int64_t a_at, const float *b, const dot_depth *d,
                               int64_t width, int add) {
  vec sum[PIXELS][VECTORS];
  const float *at[PIXELS];
  int64_t rows = d->rows, run = d->run, a_row = d->a_row, b_row = d->b_row;
  UNROLL for (int p = 0; p < pixels; p++) {
    at[p] = a[p] + a_at;
    UNROLL for (int v = 0; v < VECTORS; v++) sum[p][v] = (vec){0};
  }
  for (int64_t r = 0; r < rows; r++, b += b_row) {
    for (int64_t k = 0; k < run; k++) {
      vec w[VECTORS];
      UNROLL for (int v = 0; v < VECTORS; v++) w[v] = *(const vec *)(b + k * PANEL + v * LANES);
      UNROLL for (int p = 0; p < pixels; p++)
        UNROLL for (int v = 0; v < VECTORS; v++) sum[p][v] += at[p][k] * w[v];
    }
    UNROLL for (int p = 0; p < pixels; p++) at[p] += a_row;
  }
  if (width == PANEL && !add) {
    UNROLL for (int p = 0; p < pixels; p++)
      UNROLL for (int v = 0; v < VECTORS; v++) *(vec *)(y[p] + y_at + v * LANES) = sum[p][v];
  } else if (width == PANEL) {
    UNROLL for (int p = 0; p < pixels; p++)
      UNROLL for (int v = 0; v < VECTORS; v++) *(vec *)(y[p] + y_at + v * LANES) += sum[p][v];
  } else {
    float all[PIXELS][PANEL];
    UNROLL for (int p = 0; p < pixels; p++)
      UNROLL for (int v = 0; v < VECTORS; v++) *(vec *)(all[p] + v * LANES) = sum[p][v];
    for (int p = 0; p < pixels; p++)
      for (int64_t i = 0; i < width; i++) y[p][y_at + i] = all[p][i] + (add ? y[p][y_at + i] : 0);
  }
}
#define DOT(pixels) \
  PANEL_LOOP void panel_dot_##pixels(float *const *y, int64_t y_at, const float *const *a, int64_t a_at, const float *b, const dot_depth *d, \
                                     int64_t width, int add) { \
    panel_dot_of(pixels, y, y_at, a, a_at, b, d, width, add); \
  }
DOT(1)
DOT(2)
#if defined(__AVX__) || defined(__aarch64__)
DOT(3)
DOT(4)
DOT(5)
DOT(6)
#endif
#if defined(__AVX512F__)
DOT(7)
DOT(8)
DOT(9)
DOT(10)
DOT(11)
DOT(12)
#endif
#undef DOT
typedef void dot_loop(float *const *y, int64_t y_at, const float *const *a, int64_t a_at, const float *b, const dot_depth *d, int64_t width,
                      int add);
static dot_loop *const panel_dot_pixels[PIXELS + 1] = {
  NULL, panel_dot_1, panel_dot_2,
#if defined(__AVX__) || defined(__aarch64__)
  panel_dot_3, panel_dot_4, panel_dot_5, panel_dot_6,
#endif
#if defined(__AVX512F__)
  panel_dot_7, panel_dot_8, panel_dot_9, panel_dot_10, panel_dot_11, panel_dot_12,
#endif
};

/* y[p][y_at + 0..width) = or, when add, += sum over d of a[p][a_at + k] * b[k][0..16), for `count` pixels p, at most PIXELS. width <= 16. */
static inline void panel_dot(int64_t count, float *const *y, int64_t y_at, const float *const *a, int64_t a_at, const float *b,
                             const dot_depth *d, int64_t width, int add) {
  panel_dot_pixels[count](y, y_at, a, a_at, b, d, width, add);
}

/* Three nested loops over pixels: how often, and how far a and b move each time. The last is the innermost. */
typedef struct { int64_t count[3], a[3], b[3]; } pixel_loops;

PANEL_INLINE void panel_outer_of(int rows, float *c, const float *a, const float *b, const pixel_loops *at, int first) {
  vec sum[ROWS][VECTORS];
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int v = 0; v < VECTORS; v++) sum[r][v] = (vec){0};
  int64_t a_step = at->a[2], b_step = at->b[2], n = at->count[2];
  for (int64_t i = 0; i < at->count[0]; i++)
    for (int64_t j = 0; j < at->count[1]; j++) {
      const float *ap = a + i * at->a[0] + j * at->a[1], *bp = b + i * at->b[0] + j * at->b[1];
      for (int64_t k = 0; k < n; k++, ap += a_step, bp += b_step) {
        vec w[VECTORS];
        UNROLL for (int v = 0; v < VECTORS; v++) w[v] = *(const vec *)(bp + v * LANES);
        UNROLL for (int r = 0; r < rows; r++)
          UNROLL for (int v = 0; v < VECTORS; v++) sum[r][v] += ap[r] * w[v];
      }
    }
  if (first) {
    UNROLL for (int r = 0; r < rows; r++)
      UNROLL for (int v = 0; v < VECTORS; v++) *(vec *)(c + r * PANEL + v * LANES) = sum[r][v];
  } else {
    UNROLL for (int r = 0; r < rows; r++)
      UNROLL for (int v = 0; v < VECTORS; v++) *(vec *)(c + r * PANEL + v * LANES) += sum[r][v];
  }
}
#define OUTER(rows) \
  PANEL_LOOP void panel_outer_##rows(float *c, const float *a, const float *b, const pixel_loops *at, int first) { \
    panel_outer_of(rows, c, a, b, at, first); \
  }
OUTER(1)
OUTER(2)
#if defined(__AVX__) || defined(__aarch64__)
OUTER(3)
OUTER(4)
OUTER(5)
OUTER(6)
#endif
#if defined(__AVX512F__)
OUTER(7)
OUTER(8)
#endif
#undef OUTER
typedef void outer_loop(float *c, const float *a, const float *b, const pixel_loops *at, int first);
static outer_loop *const panel_outer_rows[ROWS + 1] = {
  NULL, panel_outer_1, panel_outer_2,
#if defined(__AVX__) || defined(__aarch64__)
  panel_outer_3, panel_outer_4, panel_outer_5, panel_outer_6,
#endif
#if defined(__AVX512F__)
  panel_outer_7, panel_outer_8,
#endif
};

/* c[r][0..16) = or, unless first, += sum over pixels of a[r] * b[0..16), for `rows` rows. */
static inline void panel_outer(float *c, const float *a, const float *b, const pixel_loops *at, int64_t rows, int first) {
  int64_t parts = (rows + ROWS - 1) / ROWS;
  for (int64_t i = 0; i < parts; i++) {
    int64_t r = i * rows / parts;
    panel_outer_rows[(i + 1) * rows / parts - r](c + r * PANEL, a + r, b, at, first);
  }
}

#endif
