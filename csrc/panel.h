/* Register-blocked inner loops of the float convolutions, over panels of 16 output channels.
 * Written with the compiler's vector types, so that one source serves every instruction set. */
#ifndef TYCHO_PANEL_H
#define TYCHO_PANEL_H
#include <stdint.h>
#include <string.h>

/* LANES floats fill a register. PIXELS x WIDE panels (and ROWS x WIDE panels) are the sums that stay in registers. */
#if defined(__AVX512F__)
enum { LANES = 16, PIXELS = 8, ROWS = 8, WIDE = 2 };
#elif defined(__AVX__)
enum { LANES = 8, PIXELS = 6, ROWS = 4, WIDE = 1 };
#else
enum { LANES = 4, PIXELS = 4, ROWS = 4, WIDE = 1 };
#endif
enum { PANEL = 16, VECTORS = PANEL / LANES };
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
#define PANEL_INLINE static inline __attribute__((always_inline))

static inline int64_t panels_of(int64_t channels) { return (channels + PANEL - 1) / PANEL; }

/* to[c][0..8) = from[0..8)[c] for c in [0, 8): an 8x8 transposition; steps are floats between rows. */
typedef float eight __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t eight_places __attribute__((vector_size(32)));
static inline void transpose8(float *to, int64_t to_step, const float *from, int64_t from_step) {
  const eight_places low = {0, 8, 1, 9, 4, 12, 5, 13}, high = {2, 10, 3, 11, 6, 14, 7, 15};
  const eight_places left = {0, 1, 8, 9, 4, 5, 12, 13}, right = {2, 3, 10, 11, 6, 7, 14, 15};
  const eight_places first = {0, 1, 2, 3, 8, 9, 10, 11}, second = {4, 5, 6, 7, 12, 13, 14, 15};
  eight a[8], b[8];
  for (int i = 0; i < 8; i++) a[i] = *(const eight *)(from + i * from_step);
  for (int i = 0; i < 8; i += 2) {
    b[i] = __builtin_shuffle(a[i], a[i + 1], low);
    b[i + 1] = __builtin_shuffle(a[i], a[i + 1], high);
  }
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; j++) {
      a[i + 2 * j] = __builtin_shuffle(b[i + j], b[i + j + 2], left);
      a[i + 2 * j + 1] = __builtin_shuffle(b[i + j], b[i + j + 2], right);
    }
  for (int i = 0; i < 4; i++) {
    *(eight *)(to + i * to_step) = __builtin_shuffle(a[i], a[i + 4], first);
    *(eight *)(to + (i + 4) * to_step) = __builtin_shuffle(a[i], a[i + 4], second);
  }
}

/* y[p][0..width) = sum over `rows` runs of `run` values of a[p][k] * b[k][0..16), for each of `panels` (1 or WIDE) panels.
 * The next run of a is a_row floats on, of b b_row floats; the next panel of b is b_panel floats on. */
PANEL_INLINE void panel_dot_of(int panels, float *const *y, const float *const *a, const float *b, int64_t rows, int64_t run,
                               int64_t a_row, int64_t b_row, int64_t b_panel, int64_t width) {
  enum { MAX = WIDE * VECTORS };
  vec sum[PIXELS][MAX];
  const float *at[PIXELS];
  for (int p = 0; p < PIXELS; p++) {
    at[p] = a[p];
    for (int v = 0; v < panels * VECTORS; v++) sum[p][v] = (vec){0};
  }
  for (int64_t r = 0; r < rows; r++) {
    const float *row = b + r * b_row;
    for (int64_t k = 0; k < run; k++, row += PANEL) {
      vec w[MAX];
      for (int v = 0; v < panels * VECTORS; v++) w[v] = *(const vec *)(row + v / VECTORS * b_panel + v % VECTORS * LANES);
      for (int p = 0; p < PIXELS; p++)
        for (int v = 0; v < panels * VECTORS; v++) sum[p][v] += at[p][k] * w[v];
    }
    for (int p = 0; p < PIXELS; p++) at[p] += a_row;
  }
  if (width == panels * PANEL) {
    for (int p = 0; p < PIXELS; p++)
      for (int v = 0; v < panels * VECTORS; v++) *(vec *)(y[p] + v * LANES) = sum[p][v];
  } else {
    for (int p = 0; p < PIXELS; p++) {
      float all[WIDE * PANEL];
      for (int v = 0; v < panels * VECTORS; v++) *(vec *)(all + v * LANES) = sum[p][v];
      memcpy(y[p], all, (size_t)width * sizeof *all);
    }
  }
}
static void panel_dot(int panels, float *const *y, const float *const *a, const float *b, int64_t rows, int64_t run, int64_t a_row,
                      int64_t b_row, int64_t b_panel, int64_t width) {
  if (panels == 1) panel_dot_of(1, y, a, b, rows, run, a_row, b_row, b_panel, width);
  else panel_dot_of(WIDE, y, a, b, rows, run, a_row, b_row, b_panel, width);
}

/* Three nested loops over pixels: how often, and how far a and b move each time. The last is the innermost. */
typedef struct { int64_t count[3], a[3], b[3]; } pixel_loops;

/* c[r][0..16) += sum over pixels of a[r] * b[0..16), for `rows` <= ROWS rows and 1 or WIDE panels. */
PANEL_INLINE void panel_outer_of(int panels, int full, float *c, const float *a, const float *b, const pixel_loops *at, int64_t rows,
                                 int64_t b_panel, int64_t c_panel) {
  enum { MAX = WIDE * VECTORS };
  vec sum[ROWS][MAX];
  int64_t row[ROWS]; /* missing rows repeat the last one: nothing beyond it may be read */
  for (int r = 0; r < ROWS; r++) {
    row[r] = full || r < rows ? r : rows - 1;
    for (int v = 0; v < panels * VECTORS; v++) sum[r][v] = (vec){0};
  }
  int64_t a_step = at->a[2], b_step = at->b[2], n = at->count[2];
  for (int64_t i = 0; i < at->count[0]; i++)
    for (int64_t j = 0; j < at->count[1]; j++) {
      const float *ap = a + i * at->a[0] + j * at->a[1], *bp = b + i * at->b[0] + j * at->b[1];
      for (int64_t k = 0; k < n; k++, ap += a_step, bp += b_step) {
        vec w[MAX];
        for (int v = 0; v < panels * VECTORS; v++) w[v] = *(const vec *)(bp + v / VECTORS * b_panel + v % VECTORS * LANES);
        for (int r = 0; r < ROWS; r++)
          for (int v = 0; v < panels * VECTORS; v++) sum[r][v] += ap[full ? r : row[r]] * w[v];
      }
    }
  for (int r = 0; r < ROWS; r++)
    for (int v = 0; v < panels * VECTORS; v++)
      if (full || r < rows) *(vec *)(c + r * PANEL + v / VECTORS * c_panel + v % VECTORS * LANES) += sum[r][v];
}
static void panel_outer(int panels, float *c, const float *a, const float *b, const pixel_loops *at, int64_t rows, int64_t b_panel,
                        int64_t c_panel) {
  if (panels == 1) {
    if (rows == ROWS) panel_outer_of(1, 1, c, a, b, at, rows, b_panel, c_panel);
    else panel_outer_of(1, 0, c, a, b, at, rows, b_panel, c_panel);
  } else {
    if (rows == ROWS) panel_outer_of(WIDE, 1, c, a, b, at, rows, b_panel, c_panel);
    else panel_outer_of(WIDE, 0, c, a, b, at, rows, b_panel, c_panel);
  }
}

#endif
