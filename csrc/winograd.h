/* Winograd's minimal filtering for 3x3 convolutions of stride 1 (Lavin & Gray 2015): Y = A'[(G g G') . (B' d B)]A for tiles d of inputs and
 * Y of outputs, channels summed in the transformed domain, one matrix product for each point. Tiles of 4x4 outputs take 36 multiplications
 * where direct summation takes 144, tiles of 4x2 outputs 24 where it takes 72.
 * The four-output transforms use the points 0, +-1/sqrt(2), +-sqrt(2), infinity: half the rounding error of the usual 0, +-1, +-2, and all
 * of their powers that are not exact come out as one factor.
 * Float only, and only for channel counts that fill whole panels.
 * No sum is split among threads, and the weight gradient's order depends on the shapes alone: the thread count does not change a
 * result. */
#ifndef TYCHO_WINOGRAD_H
#define TYCHO_WINOGRAD_H
#include "conv.h"
#include "panel.h"
#include <omp.h>

enum {
  TILE_ROWS = 4, PATCH_ROWS = 6, MAX_COLUMNS = 4, MAX_PATCH = 6, MAX_POINTS = 36,
  CHUNK_BYTES = 8 << 20,  /* transformed images that the cores share */
  ITEMS_PER_THREAD = 4,
  SKEW = 16               /* floats between planes, so that the planes of a point do not fall on one cache set */
};

static inline vec load(const float *p) { return *(const vec *)p; }
static inline void store(float *p, vec v) { *(vec *)p = v; }

/* ---- the one-dimensional transforms for n = 4 or 2 outputs ---- */

#define POINT_A 0.70710678f /* 1/sqrt(2) */
#define POINT_B 1.41421356f /* sqrt(2) */

PANEL_INLINE void input_points(int n, vec *u, const vec *d) { /* B' */
  if (n == 2) {
    u[0] = d[0] - d[2];
    u[1] = d[1] + d[2];
    u[2] = d[2] - d[1];
    u[3] = d[1] - d[3];
    return;
  }
  vec even_a = d[4] - 2 * d[2], odd_a = d[3] - 2 * d[1], even_b = d[4] - 0.5f * d[2], odd_b = d[3] - 0.5f * d[1];
  u[0] = d[0] - 2.5f * d[2] + d[4];
  u[1] = even_a + POINT_A * odd_a;
  u[2] = even_a - POINT_A * odd_a;
  u[3] = even_b + POINT_B * odd_b;
  u[4] = even_b - POINT_B * odd_b;
  u[5] = d[1] - 2.5f * d[3] + d[5];
}
PANEL_INLINE void output_values(int n, vec *y, const vec *m) { /* A' */
  if (n == 2) {
    y[0] = m[0] + (m[1] + m[2]);
    y[1] = (m[1] - m[2]) - m[3];
    return;
  }
  vec even_a = m[1] + m[2], odd_a = m[1] - m[2], even_b = m[3] + m[4], odd_b = m[3] - m[4];
  y[0] = m[0] + even_a + even_b;
  y[1] = POINT_A * odd_a + POINT_B * odd_b;
  y[2] = 0.5f * even_a + 2 * even_b;
  y[3] = POINT_A / 2 * odd_a + POINT_B * 2 * odd_b + m[5];
}
PANEL_INLINE void output_points(int n, vec *u, const vec *y) { /* A */
  if (n == 2) {
    u[0] = y[0];
    u[1] = y[0] + y[1];
    u[2] = y[0] - y[1];
    u[3] = -y[1];
    return;
  }
  vec even_a = y[0] + 0.5f * y[2], odd_a = y[1] + 0.5f * y[3], even_b = y[0] + 2 * y[2], odd_b = y[1] + 2 * y[3];
  u[0] = y[0];
  u[1] = even_a + POINT_A * odd_a;
  u[2] = even_a - POINT_A * odd_a;
  u[3] = even_b + POINT_B * odd_b;
  u[4] = even_b - POINT_B * odd_b;
  u[5] = y[3];
}
PANEL_INLINE void weight_points(int n, vec *u, const vec *g) { /* G */
  if (n == 2) {
    vec even = 0.5f * (g[0] + g[2]), odd = 0.5f * g[1];
    u[0] = g[0];
    u[1] = even + odd;
    u[2] = even - odd;
    u[3] = g[2];
    return;
  }
  vec even_a = -2.0f / 3 * g[0] - 1.0f / 3 * g[2], odd_a = -2.0f / 3 * POINT_A * g[1];
  vec even_b = 1.0f / 6 * g[0] + 1.0f / 3 * g[2], odd_b = POINT_B / 6 * g[1];
  u[0] = g[0];
  u[1] = even_a + odd_a;
  u[2] = even_a - odd_a;
  u[3] = even_b + odd_b;
  u[4] = even_b - odd_b;
  u[5] = g[2];
}
PANEL_INLINE void weight_values(int n, vec *g, const vec *u) { /* G' */
  if (n == 2) {
    vec even = 0.5f * (u[1] + u[2]), odd = 0.5f * (u[1] - u[2]);
    g[0] = u[0] + even;
    g[1] = odd;
    g[2] = even + u[3];
    return;
  }
  vec even_a = u[1] + u[2], odd_a = u[1] - u[2], even_b = u[3] + u[4], odd_b = u[3] - u[4];
  g[0] = u[0] + (1.0f / 6 * even_b - 2.0f / 3 * even_a);
  g[1] = POINT_B / 6 * odd_b - 2.0f / 3 * POINT_A * odd_a;
  g[2] = 1.0f / 3 * (even_b - even_a) + u[5];
}

/* ---- tiles of images ---- */

/* A channels-last image batch cut into tiles of 4 x columns outputs; the first tile's first pixel is (-border, -border). */
typedef struct {
  const float *x;
  int64_t h, w, channels, tile_rows, tile_columns, border, columns;
  const float *zeros; /* `channels` of them, for pixels outside */
} tiling;

static inline int64_t points_of(int64_t columns) { return PATCH_ROWS * (columns + 2); }

static inline tiling tiles_of(const float *x, int64_t h, int64_t w, int64_t channels, int64_t oh, int64_t ow, int64_t border, int columns) {
  return (tiling){.x = x, .h = h, .w = w, .channels = channels, .tile_rows = ceil_div(oh, TILE_ROWS), .tile_columns = ceil_div(ow, columns),
                  .border = border, .columns = columns};
}

/* Where the rows x columns pixels of one tile are. */
static inline void tile_pixels(const float **at, const tiling *t, int64_t image, int64_t row, int64_t column, int64_t rows, int64_t columns) {
  int64_t top = row * TILE_ROWS - t->border, left = column * t->columns - t->border;
  const float *first = t->x + ((image * t->h + top) * t->w + left) * t->channels;
  int inside = top >= 0 && top + rows <= t->h && left >= 0 && left + columns <= t->w;
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++) {
      int here = inside || (top + i >= 0 && top + i < t->h && left + j >= 0 && left + j < t->w);
      at[i * columns + j] = here ? first + (i * t->w + j) * t->channels : t->zeros;
    }
}

/* Transforms one row of tiles for point planes that are `plane` floats apart. A tile's values are `tile_step` floats from the last one's,
 * its panels of channels `panel_step` floats apart. B'dB of patches when inputs, A dY A' of tiles otherwise. */
PANEL_INLINE void transform_row_of(int n, int inputs, float *points, int64_t plane, int64_t tile_step, int64_t panel_step, const tiling *t,
                                   int64_t image, int64_t row) {
  const int rows = inputs ? PATCH_ROWS : TILE_ROWS, columns = inputs ? n + 2 : n;
  int64_t channels = t->channels, ahead = n * channels;
  for (int64_t column = 0; column < t->tile_columns; column++, points += tile_step) {
    const float *at[MAX_POINTS];
    tile_pixels(at, t, image, row, column, rows, columns);
    for (int64_t panel = 0; panel < channels; panel += PANEL) {
      /* The next tile's new pixels: with this many streams the processor does not foresee them. */
      UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = columns - n; j < columns; j++) __builtin_prefetch(at[i * columns + j] + ahead + panel);
      for (int64_t lane = 0; lane < PANEL; lane += LANES) {
        vec half[PATCH_ROWS][MAX_PATCH]; /* [pixel row][point column] */
        UNROLL for (int i = 0; i < rows; i++) {
          vec d[MAX_PATCH];
          UNROLL for (int j = 0; j < columns; j++) d[j] = load(at[i * columns + j] + panel + lane);
          if (inputs) input_points(n, half[i], d);
          else output_points(n, half[i], d);
        }
        float *to = points + panel / PANEL * panel_step + lane;
        UNROLL for (int j = 0; j < n + 2; j++) {
          vec d[PATCH_ROWS], u[PATCH_ROWS];
          UNROLL for (int i = 0; i < rows; i++) d[i] = half[i][j];
          if (inputs) input_points(TILE_ROWS, u, d);
          else output_points(TILE_ROWS, u, d);
          UNROLL for (int i = 0; i < PATCH_ROWS; i++) store(to + (i * (n + 2) + j) * plane, u[i]);
        }
      }
    }
  }
}
static inline void transform_inputs(float *points, int64_t plane, int64_t tile_step, int64_t panel_step, const tiling *t, int64_t image, int64_t row) {
  if (t->columns == 4) transform_row_of(4, 1, points, plane, tile_step, panel_step, t, image, row);
  else transform_row_of(2, 1, points, plane, tile_step, panel_step, t, image, row);
}
static inline void transform_outputs(float *points, int64_t plane, int64_t tile_step, int64_t panel_step, const tiling *t, int64_t image, int64_t row) {
  if (t->columns == 4) transform_row_of(4, 0, points, plane, tile_step, panel_step, t, image, row);
  else transform_row_of(2, 0, points, plane, tile_step, panel_step, t, image, row);
}

#endif
