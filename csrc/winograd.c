/* Winograd convolution: forward, and back_input as the forward of the mirrored weights. */
#ifndef TYCHO_DOUBLE
#include "winograd.h"

enum {
  MIN_BLOCK = 24, MAX_BLOCK = 48, /* tiles that stay in a core's second-level cache, transformed, and their products */
  BLOCK_BYTES = 640 << 10, /* their transformed inputs at most, else each panel of weights passes through all tiles instead */
  PRODUCT_TILES = 120,     /* then: tiles whose products with one panel stay in that cache */
  WEIGHTS_AHEAD = 4        /* inputs whose weights are fetched before they are transformed */
};

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
