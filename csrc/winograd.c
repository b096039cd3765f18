/* Winograd's minimal filtering for 3x3 convolutions of stride 1 (Lavin & Gray 2015): Y = A'[(G g G') . (B' d B)]A for tiles d of inputs and
 * Y of outputs, channels summed in the transformed domain, one matrix product for each point. Tiles of 4x4 outputs take 36 multiplications
 * where direct summation takes 144, tiles of 4x2 outputs 24 where it takes 72.
 * The four-output transforms use the points 0, +-1/sqrt(2), +-sqrt(2), infinity: half the rounding error of the usual 0, +-1, +-2, and all
 * of their powers that are not exact come out as one factor.
 * Float only, and only for channel counts that fill whole panels.
 * No sum is split among threads, and the weight gradient's order depends on the shapes alone: the thread count does not change a
 * result. */
#include "conv.h"
#ifndef TYCHO_DOUBLE
#include "panel.h"
#include <omp.h>

enum {
  TILE_ROWS = 4, PATCH_ROWS = 6, MAX_COLUMNS = 4, MAX_PATCH = 6, MAX_POINTS = 36,
  MIN_BLOCK = 24, MAX_BLOCK = 48, /* tiles that stay in a core's second-level cache, transformed, and their products */
  BLOCK_BYTES = 640 << 10, /* their transformed inputs at most, else each panel of weights passes through all tiles instead */
  PRODUCT_TILES = 120,    /* then: tiles whose products with one panel stay in that cache */
  CHUNK_BYTES = 8 << 20,  /* transformed images that the cores share */
  BAND_TILES = 240,       /* of the weight gradient: a band of one panel of dy stays in the first-level cache */
  BLOCK_PANELS = 4,       /* of the weight gradient: panels of inputs that meet it there */
  PART_TILES = 128,       /* of the weight gradient: tiles whose points one core keeps to itself */
  ITEMS_PER_THREAD = 4,
  WEIGHTS_AHEAD = 4,       /* inputs whose weights are fetched before they are transformed */
  SKEW = 16               /* floats between planes, so that the planes of a point do not fall on one cache set */
};

static int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static vec load(const float *p) { return *(const vec *)p; }
static void store(float *p, vec v) { *(vec *)p = v; }

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

static int64_t points_of(int64_t columns) { return PATCH_ROWS * (columns + 2); }

/* Where the rows x columns pixels of one tile are. */
static void tile_pixels(const float **at, const tiling *t, int64_t image, int64_t row, int64_t column, int64_t rows, int64_t columns) {
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
static void transform_inputs(float *points, int64_t plane, int64_t tile_step, int64_t panel_step, const tiling *t, int64_t image, int64_t row) {
  if (t->columns == 4) transform_row_of(4, 1, points, plane, tile_step, panel_step, t, image, row);
  else transform_row_of(2, 1, points, plane, tile_step, panel_step, t, image, row);
}
static void transform_outputs(float *points, int64_t plane, int64_t tile_step, int64_t panel_step, const tiling *t, int64_t image, int64_t row) {
  if (t->columns == 4) transform_row_of(4, 0, points, plane, tile_step, panel_step, t, image, row);
  else transform_row_of(2, 0, points, plane, tile_step, panel_step, t, image, row);
}

/* ---- forward, and back_input as the forward of the mirrored weights ---- */

/* y (n, oh, ow, out) from tiles of x. Tap (kh, kw) of input i for 16 outputs is at weights + panel*panel_step + tap*tap_step + i*input_step;
 * forward weights are brought into that form by the core that needs a panel, just before. */
typedef struct {
  const conv_shape *s;
  tiling in;
  float *y;
  const float *weights;
  int64_t n, out, oh, ow, panel_step, tap_step, input_step;
  int forward;
} filtering;

/* u[point][in][16] from one panel of weights, mirrored unless forward. */
PANEL_INLINE void transform_weights_of(int n, float *u, const filtering *f, const float *weights) {
  int64_t in = f->in.channels;
  for (int64_t i = 0; i < in; i++) {
    const float *ahead = weights + (i + WEIGHTS_AHEAD) * f->input_step;
    UNROLL for (int tap = 0; tap < 9; tap++) __builtin_prefetch(ahead + tap * f->tap_step);
    for (int64_t lane = 0; lane < PANEL; lane += LANES) {
      const float *w = weights + i * f->input_step + lane;
      vec half[3][MAX_PATCH];
      UNROLL for (int r = 0; r < 3; r++) {
        vec g[3];
        UNROLL for (int c = 0; c < 3; c++) g[c] = load(w + (f->forward ? r * 3 + c : 8 - r * 3 - c) * f->tap_step);
        weight_points(n, half[r], g);
      }
      UNROLL for (int c = 0; c < n + 2; c++) {
        vec g[3] = {half[0][c], half[1][c], half[2][c]}, points[PATCH_ROWS];
        weight_points(TILE_ROWS, points, g);
        UNROLL for (int r = 0; r < PATCH_ROWS; r++) store(u + ((r * (n + 2) + c) * in + i) * PANEL + lane, points[r]);
      }
    }
  }
}
/* For panel p; packed: room for 9*in*16 floats when forward. */
static void transform_weights(float *u, const filtering *f, float *packed, int64_t p) {
  const float *weights = f->weights + p * f->panel_step;
  if (f->forward) {
    ty_pack_weights(f->s, packed, f->weights, p);
    weights = packed;
  }
  if (f->in.columns == 4) transform_weights_of(4, u, f, weights);
  else transform_weights_of(2, u, f, weights);
}

/* Where tile t of the batch begins in y, for panel p. */
static float *tile_outputs(const filtering *f, int64_t t, int64_t p) {
  int64_t row = t / f->in.tile_columns, column = t % f->in.tile_columns, image = row / f->in.tile_rows;
  return f->y + ((image * f->oh + row % f->in.tile_rows * TILE_ROWS) * f->ow + column * f->in.columns) * f->out + p * PANEL;
}

/* Writes the outputs of tile t, as far as they exist, from products m[point][16] with planes `plane` floats apart. */
PANEL_INLINE void write_tile_of(int n, const filtering *f, const float *m, int64_t plane, int64_t t, int64_t p) {
  int64_t rows = min(TILE_ROWS, f->oh - t / f->in.tile_columns % f->in.tile_rows * TILE_ROWS);
  int64_t columns = min(n, f->ow - t % f->in.tile_columns * n);
  float *y = tile_outputs(f, t, p);
  UNROLL for (int64_t lane = 0; lane < PANEL; lane += LANES) {
    vec half[PATCH_ROWS][MAX_COLUMNS], values[TILE_ROWS][MAX_COLUMNS]; /* [point row][pixel column], [pixel row][pixel column] */
    UNROLL for (int i = 0; i < PATCH_ROWS; i++) {
      vec d[MAX_PATCH];
      UNROLL for (int j = 0; j < n + 2; j++) d[j] = load(m + (i * (n + 2) + j) * plane + lane);
      output_values(n, half[i], d);
    }
    UNROLL for (int j = 0; j < n; j++) {
      vec d[PATCH_ROWS], value[TILE_ROWS];
      UNROLL for (int i = 0; i < PATCH_ROWS; i++) d[i] = half[i][j];
      output_values(TILE_ROWS, value, d);
      UNROLL for (int i = 0; i < TILE_ROWS; i++) values[i][j] = value[i];
    }
    for (int i = 0; i < rows; i++)
      for (int j = 0; j < columns; j++) store(y + (i * f->ow + j) * f->out + lane, values[i][j]);
  }
}
static void write_tile(const filtering *f, const float *m, int64_t plane, int64_t t, int64_t p) {
  if (f->in.columns == 4) write_tile_of(4, f, m, plane, t, p);
  else write_tile_of(2, f, m, plane, t, p);
}

/* Tiles t0 .. t0 + count of the batch for panel p, count at most PRODUCT_TILES. Point xi of tile t0 + k is at points + xi*plane + k*in. */
static void filter_tiles(const filtering *f, const float *points, int64_t plane, const float *u, float *m, int64_t t0, int64_t count,
                         int64_t p) {
  int64_t in = f->in.channels, blocks = ceil_div(count, PIXELS), m_plane = count * PANEL + SKEW, planes = points_of(f->in.columns);
  const float *a[PRODUCT_TILES];
  float *to[PRODUCT_TILES], *y[PRODUCT_TILES];
  for (int64_t k = 0; k < count; k++) {
    a[k] = points + k * in;
    to[k] = m + k * PANEL;
    y[k] = tile_outputs(f, t0 + k, p);
  }
  dot_depth d = {1, in, 0, 0};
  int64_t lines = ceil_div(in, blocks) * PANEL;
  for (int64_t xi = 0; xi < planes; xi++)
    for (int64_t k = 0; k < blocks; k++) {
      int64_t first = k * count / blocks, some = (k + 1) * count / blocks - first;
      /* The next point's weights, and one pixel of each tile for writing. */
      const float *next = u + (xi + 1) * in * PANEL + k * lines;
      for (int64_t l = 0; l < lines; l += PANEL) __builtin_prefetch(next + l);
      if (xi < TILE_ROWS * f->in.columns)
        for (int64_t i = first; i < first + some; i++)
          __builtin_prefetch(y[i] + (xi / f->in.columns * f->ow + xi % f->in.columns) * f->out, 1);
      panel_dot(some, to + first, xi * m_plane, a + first, xi * plane, u + xi * in * PANEL, &d, PANEL, 0);
    }
  for (int64_t k = 0; k < count; k++) write_tile(f, m + k * PANEL, m_plane, t0 + k, p);
}

/* Tile rows first .. first + count of the batch to points[point][tile][in]. */
static void transform_tile_rows(const filtering *f, float *points, int64_t plane, int64_t first, int64_t count) {
  const tiling *t = &f->in;
  for (int64_t r = first; r < first + count; r++)
    transform_inputs(points + (r - first) * t->tile_columns * t->channels, plane, t->channels, PANEL, t, r / t->tile_rows, r % t->tile_rows);
}

/* Many tiles: the transformed weights are kept, and each block of tiles goes through all panels while it is in a core's cache. */
static void filter_by_tiles(const filtering *f, float *u, float *points, int64_t plane, int64_t block_rows, float *m, float *packed) {
  int64_t rows = f->n * f->in.tile_rows, panels = panels_of(f->out), u_panel = points_of(f->in.columns) * f->in.channels * PANEL;
#pragma omp for
  for (int64_t p = 0; p < panels; p++) transform_weights(u + p * u_panel, f, packed, p);
#pragma omp for /* divided as other ops divide images: most of x is in this core's cache */
  for (int64_t first = 0; first < rows; first += block_rows) {
    if (ty_is_unwanted()) continue;
    int64_t count = min(block_rows, rows - first);
    transform_tile_rows(f, points, plane, first, count);
    for (int64_t p = 0; p < panels; p++)
      filter_tiles(f, points, plane, u + p * u_panel, m, first * f->in.tile_columns, count * f->in.tile_columns, p);
  }
}

/* Few tiles, large weights: the transformed inputs are kept, and each panel's weights go through all tiles while they are in a cache. */
static void filter_by_panels(const filtering *f, float *u, float *points, int64_t plane, int64_t chunk_rows, float *m, float *packed, int *ended) {
  int64_t in = f->in.channels, rows = f->n * f->in.tile_rows, panels = panels_of(f->out);
  for (int64_t first = 0; first < rows; first += chunk_rows) {
    int64_t count = min(chunk_rows, rows - first), tiles = count * f->in.tile_columns;
    int64_t pieces = min(ceil_div(tiles, PRODUCT_TILES), ceil_div(omp_get_num_threads() * ITEMS_PER_THREAD, panels));
#pragma omp for
    for (int64_t r = 0; r < count; r++) {
      if (ty_end_phase(ended)) continue;
      transform_tile_rows(f, points + r * f->in.tile_columns * in, plane, first + r, 1);
    }
    if (*ended) return;
#pragma omp for schedule(dynamic)
    for (int64_t item = 0; item < panels * pieces; item++) {
      if (ty_is_unwanted()) continue;
      int64_t p = item / pieces, piece = item % pieces, end = (piece + 1) * tiles / pieces;
      transform_weights(u, f, packed, p);
      for (int64_t t = piece * tiles / pieces, some; t < end; t += some) {
        some = ceil_div(end - t, ceil_div(end - t, PRODUCT_TILES));
        some = min(end - t, ceil_div(some, PIXELS) * PIXELS);
        filter_tiles(f, points + t * in, plane, u, m, first * f->in.tile_columns + t, some, p);
      }
    }
  }
}

/* Rows of `tiles` tiles in a block: the fewest that fill the PIXELS best that are multiplied together. */
static int64_t block_rows_of(int64_t tiles, int64_t tile_bytes) {
  int64_t best = 1;
  for (int64_t r = 2; r * tiles <= MAX_BLOCK && r * tiles * tile_bytes <= BLOCK_BYTES; r++)
    if (best * ceil_div(r * tiles, PIXELS) < r * ceil_div(best * tiles, PIXELS)) best = r;
  return best;
}

static int filter(const char *op, filtering *f) {
  int64_t in = f->in.channels, tiles = f->in.tile_columns, planes = points_of(f->in.columns), panels = panels_of(f->out);
  int64_t rows = f->n * f->in.tile_rows, threads = omp_get_max_threads(), tile_bytes = planes * in * (int64_t)sizeof(float);
  int64_t block_rows = block_rows_of(tiles, tile_bytes);
  int by_tiles = tiles <= PRODUCT_TILES && rows >= 2 * threads * block_rows && rows * tiles >= f->out &&
    max(MIN_BLOCK, block_rows * tiles) * tile_bytes <= BLOCK_BYTES;
  int64_t chunk_rows = max(1, CHUNK_BYTES / (tiles * tile_bytes));
  chunk_rows = ceil_div(rows, ceil_div(rows, chunk_rows));
  int64_t plane = (by_tiles ? block_rows : chunk_rows) * tiles * in + SKEW, u_panel = planes * in * PANEL;
  int64_t m_size = planes * (PRODUCT_TILES * PANEL + SKEW), packed_size = f->forward ? 9 * in * PANEL : 0;
  int64_t points_size = (by_tiles ? threads : 1) * planes * plane, u_size = (by_tiles ? panels : threads) * u_panel;
  int64_t bytes = (points_size + u_size + threads * (m_size + packed_size) + in) * (int64_t)sizeof(float);
  float *points = ty_alloc(bytes), *u = points + points_size, *m = u + u_size, *packed = m + threads * m_size;
  if (!points) return ty_no_scratch(op, bytes);
  f->in.zeros = memset(packed + threads * packed_size, 0, (size_t)in * sizeof(float));
  int ended = 0;
#pragma omp parallel if (conv_work(f->s) > PARALLEL_WORK)
  {
    int64_t id = omp_get_thread_num();
    float *my_m = m + id * m_size, *my_packed = packed + id * packed_size;
    if (by_tiles) filter_by_tiles(f, u, points + id * planes * plane, plane, block_rows, my_m, my_packed);
    else filter_by_panels(f, u + id * u_panel, points, plane, chunk_rows, my_m, my_packed, &ended);
  }
  ty_free(points, bytes);
  return 0;
}

static tiling tiles_of(const float *x, int64_t h, int64_t w, int64_t channels, int64_t oh, int64_t ow, int64_t border, int columns) {
  return (tiling){.x = x, .h = h, .w = w, .channels = channels, .tile_rows = ceil_div(oh, TILE_ROWS), .tile_columns = ceil_div(ow, columns),
                  .border = border, .columns = columns};
}

int ty_winograd_forward(const conv_shape *s, int columns, float *y, const float *x, const float *w) {
  filtering f = {.s = s, .in = tiles_of(x, s->h, s->w, s->in, s->oh, s->ow, s->padding, columns), .y = y, .weights = w, .n = s->n, .out = s->out,
                 .oh = s->oh, .ow = s->ow, .tap_step = s->in * PANEL, .input_step = PANEL, .forward = 1};
  return filter("conv2d", &f);
}

int ty_winograd_back_input(const conv_shape *s, int columns, float *dx, const float *dy, const float *w) {
  filtering f = {.s = s, .in = tiles_of(dy, s->oh, s->ow, s->out, s->h, s->w, 2 - s->padding, columns), .y = dx, .weights = w, .n = s->n,
                 .out = s->in, .oh = s->h, .ow = s->w, .panel_step = PANEL, .tap_step = s->in, .input_step = 9 * s->in};
  return filter("conv2d_back_input", &f);
}

/* ---- back_weight ---- */

/* The weights' gradient from u[point][rows][16], for `rows` input channels from i0 and panel p: added to dw, or stored when first. */
PANEL_INLINE void write_weights_of(int n, const conv_shape *s, float *dw, const float *u, int64_t rows, int64_t i0, int64_t p, int first) {
  int64_t plane = rows * PANEL;
  for (int64_t k = 0; k < rows; k += 8) {
    float g[9][8][PANEL]; /* [tap][input][output] */
    for (int64_t i = 0; i < 8; i++)
      for (int64_t lane = 0; lane < PANEL; lane += LANES) {
        const float *from = u + (k + i) * PANEL + lane;
        vec half[3][MAX_PATCH];
        UNROLL for (int c = 0; c < n + 2; c++) {
          vec d[PATCH_ROWS], value[3];
          UNROLL for (int r = 0; r < PATCH_ROWS; r++) d[r] = load(from + (r * (n + 2) + c) * plane);
          weight_values(TILE_ROWS, value, d);
          UNROLL for (int r = 0; r < 3; r++) half[r][c] = value[r];
        }
        UNROLL for (int r = 0; r < 3; r++) {
          vec value[3];
          weight_values(n, value, half[r]);
          UNROLL for (int c = 0; c < 3; c++) store(g[r * 3 + c][i] + lane, value[c]);
        }
      }
    float *to = dw + p * PANEL * 9 * s->in + i0 + k;
    for (int64_t tap = 0; tap < 9; tap++)
      for (int64_t l = 0; l < PANEL; l += 8) {
        float block[8][8], *at = to + (l * 9 + tap) * s->in;
        transpose8(block[0], 8, &g[tap][0][l], PANEL);
        for (int64_t o = 0; o < 8; o++, at += 9 * s->in)
          *(eight *)at = *(const eight *)block[o] + (first ? (eight){0} : *(const eight *)at);
      }
  }
}
static void write_weights(const conv_shape *s, int columns, float *dw, const float *u, int64_t rows, int64_t i0, int64_t p, int first) {
  if (columns == 4) write_weights_of(4, s, dw, u, rows, i0, p, first);
  else write_weights_of(2, s, dw, u, rows, i0, p, first);
}

/* u[out panel][point][input][16] = or, unless first, += sum over the tiles of inputs times output gradients. Points are kept as
 * [point][panel][tile][16], so that the inner loop reads whole cache lines; `ins` panels of inputs meet `outs` panels of outputs. */
typedef struct { const float *at; int64_t plane, panel; } plane_set;
static void multiply_points(float *u, int64_t planes, plane_set in, plane_set out, int64_t tiles, int64_t ins, int64_t outs, int first) {
  int64_t bands = ceil_div(tiles, BAND_TILES);
  for (int64_t xi = 0; xi < planes; xi++)
    for (int64_t p = 0; p < outs; p++)
      for (int64_t band = 0; band < bands; band++) {
        int64_t t = band * tiles / bands, length = (band + 1) * tiles / bands - t;
        pixel_loops loops = {{1, 1, length}, {0, 0, PANEL}, {0, 0, PANEL}};
        const float *a = in.at + xi * in.plane + t * PANEL, *b = out.at + xi * out.plane + p * out.panel + t * PANEL;
        for (int64_t k = 0; k < ins; k++)
          panel_outer(u + ((p * planes + xi) * ins + k) * PANEL * PANEL, a + k * in.panel, b, &loops, PANEL, first && band == 0);
      }
}

/* Many tiles, few weights: every part of the tiles is one core's from transform to weights. */
static int weights_by_parts(const conv_shape *s, int columns, float *dw, const tiling *in, const tiling *out, int64_t chunk_rows, int64_t parts) {
  int64_t rows = s->n * in->tile_rows, chunks = ceil_div(rows, chunk_rows), planes = points_of(columns);
  int64_t ins = s->in / PANEL, outs = s->out / PANEL, tiles = chunk_rows * in->tile_columns, panel = tiles * PANEL, size = s->out * 9 * s->in;
  plane_set x = {.plane = ins * panel + SKEW, .panel = panel}, dy = {.plane = outs * panel + SKEW, .panel = panel};
  int64_t u_size = planes * s->in * s->out, own = planes * (x.plane + dy.plane) + u_size;
  int64_t bytes = (parts * size + omp_get_max_threads() * own) * (int64_t)sizeof(float);
  float *sums = ty_alloc(bytes);
  if (!sums) return ty_no_scratch("conv2d_back_weight", bytes);
#pragma omp parallel if (conv_work(s) > PARALLEL_WORK)
  {
    float *x_points = sums + parts * size + omp_get_thread_num() * own, *dy_points = x_points + planes * x.plane;
    float *u = dy_points + planes * dy.plane;
#pragma omp for schedule(dynamic)
    for (int64_t part = 0; part < parts; part++) {
      int64_t first = part * chunks / parts, end = (part + 1) * chunks / parts;
      for (int64_t chunk = first; chunk < end && !ty_is_unwanted(); chunk++) {
        int64_t r0 = chunk * rows / chunks, count = (chunk + 1) * rows / chunks - r0;
        for (int64_t r = 0; r < count; r++) {
          int64_t image = (r0 + r) / in->tile_rows, row = (r0 + r) % in->tile_rows, at = r * in->tile_columns * PANEL;
          transform_inputs(x_points + at, x.plane, PANEL, panel, in, image, row);
          transform_outputs(dy_points + at, dy.plane, PANEL, panel, out, image, row);
        }
        multiply_points(u, planes, (plane_set){x_points, x.plane, panel}, (plane_set){dy_points, dy.plane, panel}, count * in->tile_columns, ins,
                        outs, chunk == first);
      }
      for (int64_t p = 0; p < outs; p++) write_weights(s, columns, sums + part * size, u + p * planes * s->in * PANEL, s->in, 0, p, 1);
    }
    ty_add_parts(dw, sums, parts, size);
  }
  ty_free(sums, bytes);
  return 0;
}

/* Few tiles, many weights: the cores share the transformed images and divide the weights. */
static int weights_by_panels(const conv_shape *s, int columns, float *dw, const tiling *in, const tiling *out) {
  int64_t per_image = in->tile_rows * in->tile_columns, planes = points_of(columns), in_panels = s->in / PANEL, out_panels = s->out / PANEL;
  int64_t images = max(1, CHUNK_BYTES / (planes * per_image * (s->in + s->out) * (int64_t)sizeof(float)));
  images = ceil_div(s->n, ceil_div(s->n, images));
  int64_t panel = images * per_image * PANEL;
  plane_set x = {.plane = in_panels * panel + SKEW, .panel = panel}, dy = {.plane = out_panels * panel + SKEW, .panel = panel};
  int64_t u_size = planes * BLOCK_PANELS * PANEL * PANEL, threads = omp_get_max_threads();
  int64_t bytes = (planes * (x.plane + dy.plane) + threads * u_size) * (int64_t)sizeof(float);
  float *x_points = ty_alloc(bytes), *dy_points = x_points + planes * x.plane, *scratch = dy_points + planes * dy.plane;
  if (!x_points) return ty_no_scratch("conv2d_back_weight", bytes);
  int ended = 0;
#pragma omp parallel if (conv_work(s) > PARALLEL_WORK)
  {
    float *u = scratch + omp_get_thread_num() * u_size;
    int64_t groups = ceil_div(in_panels, BLOCK_PANELS); /* more share loads, fewer keep all threads busy */
    groups = min(in_panels, max(groups, ceil_div(omp_get_num_threads() * ITEMS_PER_THREAD, out_panels)));
    for (int64_t n = 0; n < s->n; n += images) {
      int64_t count = min(images, s->n - n);
#pragma omp for
      for (int64_t r = 0; r < 2 * count * in->tile_rows; r++) {
        if (ty_end_phase(&ended)) continue;
        int64_t k = r / 2, image = n + k / in->tile_rows, row = k % in->tile_rows, at = k * in->tile_columns * PANEL;
        if (r % 2) transform_inputs(x_points + at, x.plane, PANEL, panel, in, image, row);
        else transform_outputs(dy_points + at, dy.plane, PANEL, panel, out, image, row);
      }
      if (ended) break;
#pragma omp for schedule(dynamic)
      for (int64_t item = 0; item < groups * out_panels; item++) {
        if (ty_is_unwanted()) continue;
        int64_t p = item / groups, first = item % groups * in_panels / groups, end = (item % groups + 1) * in_panels / groups;
        multiply_points(u, planes, (plane_set){x_points + first * panel, x.plane, panel}, (plane_set){dy_points + p * panel, dy.plane, panel},
                        count * per_image, end - first, 1, 1);
        write_weights(s, columns, dw, u, (end - first) * PANEL, first * PANEL, p, n == 0);
      }
    }
  }
  ty_free(x_points, bytes);
  return 0;
}

int ty_winograd_back_weight(const conv_shape *s, int columns, float *dw, const float *dy, const float *x) {
  tiling in = tiles_of(x, s->h, s->w, s->in, s->oh, s->ow, s->padding, columns);
  tiling out = tiles_of(dy, s->oh, s->ow, s->out, s->oh, s->ow, 0, columns);
  int64_t channels = max(s->in, s->out), zeros_bytes = channels * (int64_t)sizeof(float);
  float *zeros = ty_alloc(zeros_bytes);
  if (!zeros) return ty_no_scratch("conv2d_back_weight", zeros_bytes);
  in.zeros = out.zeros = memset(zeros, 0, (size_t)zeros_bytes);
  int64_t rows = s->n * in.tile_rows, chunk_rows = max(1, PART_TILES / in.tile_columns);
  int64_t parts = parts_of(rows * in.tile_columns * (s->in + s->out), s->in * s->out, ceil_div(rows, chunk_rows));
  int failed = parts ? weights_by_parts(s, columns, dw, &in, &out, chunk_rows, parts) : weights_by_panels(s, columns, dw, &in, &out);
  ty_free(zeros, zeros_bytes);
  return failed;
}

/* ---- the choice ---- */

/* Counts multiplications, and what the transforms cost in the same coin (measured). Direct convolution skips the taps on padding. */
int ty_winograd_columns(const conv_shape *s, int most) {
  if (s->kh != 3 || s->kw != 3 || s->stride != 1 || s->padding > 2 || s->in % PANEL || s->out % PANEL || s->n == 0) return 0;
  int64_t rows = 0, columns = 0;
  for (int64_t i = 0; i < s->oh; i++) rows += min(s->h, i - s->padding + 3) - max(0, i - s->padding);
  for (int64_t i = 0; i < s->ow; i++) columns += min(s->w, i - s->padding + 3) - max(0, i - s->padding);
  double products = (double)s->in * s->out, best = (double)s->n * rows * columns * products;
  int choice = 0;
  for (int n = 2; n <= most; n += 2) {
    double tiles = (double)s->n * ceil_div(s->oh, TILE_ROWS) * ceil_div(s->ow, n), planes = points_of(n);
    double cost = planes * (tiles * (products + 10 * (s->in + s->out)) + 4 * products);
    if (cost < best) best = cost, choice = n;
  }
  return choice;
}

#endif
