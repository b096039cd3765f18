/* Winograd's minimal filtering F(4x4, 3x3) for 3x3 convolutions of stride 1 (Lavin & Gray 2015): a quarter of the multiplications of
 * the direct body, at a relative error of a few 1e-6. Y = A'[(G g G') . (B' d B)]A for tiles d of 6x6 inputs and Y of 4x4 outputs;
 * channels are summed in the transformed domain, one matrix product for each of the 36 points.
 * Float only, and only for channel counts that fill whole panels; conv.c asks ty_winograd_pays first.
 * No sum is split among threads, and the weight gradient's order depends on the shapes alone: the thread count does not change a
 * result. */
#include "conv.h"
#ifndef TYCHO_DOUBLE
#include "panel.h"
#include <omp.h>

enum {
  TILE = 4, PATCH = 6, POINTS = PATCH * PATCH,
  CHUNK_BYTES = 8 << 20,  /* transformed images that the cores share */
  WEIGHT_BYTES = 8 << 20, /* transformed weights that are worth keeping */
  BLOCK_TILES = 4 * PIXELS, /* tiles that stay in a core's cache, transformed, and their products */
  BLOCK_INPUTS = 64,      /* input channels of one piece of the weight gradient */
  ITEMS_PER_THREAD = 4,
  SKEW = 16               /* floats between planes, so that the 36 planes of a point do not fall on one cache set */
};

static int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static vec load(const float *p) { return *(const vec *)p; }
static void store(float *p, vec v) { *(vec *)p = v; }

/* ---- the one-dimensional transforms ---- */

PANEL_INLINE void input_points(vec *u, const vec *d) { /* B' */
  vec even = d[4] - 4 * d[2], odd = d[3] - 4 * d[1], near = d[4] - d[2], far = 2 * (d[3] - d[1]);
  u[0] = 4 * d[0] - 5 * d[2] + d[4];
  u[1] = even + odd;
  u[2] = even - odd;
  u[3] = near + far;
  u[4] = near - far;
  u[5] = 4 * d[1] - 5 * d[3] + d[5];
}
PANEL_INLINE void output_values(vec *y, const vec *m) { /* A' */
  vec a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], d = m[3] - m[4];
  y[0] = m[0] + a + c;
  y[1] = b + 2 * d;
  y[2] = a + 4 * c;
  y[3] = b + 8 * d + m[5];
}
PANEL_INLINE void output_points(vec *u, const vec *y) { /* A */
  vec a = y[0] + y[2], b = y[1] + y[3], c = y[0] + 4 * y[2], d = 2 * y[1] + 8 * y[3];
  u[0] = y[0];
  u[1] = a + b;
  u[2] = a - b;
  u[3] = c + d;
  u[4] = c - d;
  u[5] = y[3];
}
PANEL_INLINE void weight_points(vec *u, const vec *g) { /* G */
  vec a = (g[0] + g[2]) * (-1.0f / 6), b = g[1] * (-1.0f / 6), c = g[0] * (1.0f / 24) + g[2] * (1.0f / 6), d = g[1] * (1.0f / 12);
  u[0] = g[0] * 0.25f;
  u[1] = a + b;
  u[2] = a - b;
  u[3] = c + d;
  u[4] = c - d;
  u[5] = g[2];
}
PANEL_INLINE void weight_values(vec *g, const vec *u) { /* G' */
  vec a = u[1] + u[2], b = u[1] - u[2], c = u[3] + u[4], d = u[3] - u[4];
  g[0] = u[0] * 0.25f - a * (1.0f / 6) + c * (1.0f / 24);
  g[1] = d * (1.0f / 12) - b * (1.0f / 6);
  g[2] = (c - a) * (1.0f / 6) + u[5];
}

/* ---- tiles of images ---- */

/* A channels-last image batch cut into tiles of size x size pixels, 4 apart; the first starts at (-border, -border). */
typedef struct {
  const float *x;
  int64_t h, w, channels, tile_rows, tile_columns, border, size;
  const float *zeros; /* `channels` of them, for pixels outside */
} tiling;

/* Where the pixels of one tile are. */
static void tile_pixels(const float **at, const tiling *t, int64_t image, int64_t row, int64_t column) {
  for (int64_t i = 0; i < t->size; i++)
    for (int64_t j = 0; j < t->size; j++) {
      int64_t r = row * TILE - t->border + i, c = column * TILE - t->border + j;
      int inside = r >= 0 && r < t->h && c >= 0 && c < t->w;
      at[i * t->size + j] = inside ? t->x + ((image * t->h + r) * t->w + c) * t->channels : t->zeros;
    }
}

/* Transforms one row of tiles to points[36][tile][channels]; planes are `plane` floats apart. B'dB when inputs, A dY A' otherwise. */
PANEL_INLINE void transform_row(float *points, int64_t plane, const tiling *t, int64_t image, int64_t row, int inputs) {
  const int size = inputs ? PATCH : TILE;
  for (int64_t column = 0; column < t->tile_columns; column++, points += t->channels) {
    const float *at[POINTS];
    tile_pixels(at, t, image, row, column);
    for (int64_t c = 0; c < t->channels; c += LANES) {
      vec half[PATCH][PATCH]; /* [pixel row][point column] */
      for (int i = 0; i < size; i++) {
        vec d[PATCH];
        for (int j = 0; j < size; j++) d[j] = load(at[i * size + j] + c);
        if (inputs) input_points(half[i], d);
        else output_points(half[i], d);
      }
      for (int j = 0; j < PATCH; j++) {
        vec d[PATCH], u[PATCH];
        for (int i = 0; i < size; i++) d[i] = half[i][j];
        if (inputs) input_points(u, d);
        else output_points(u, d);
        for (int i = 0; i < PATCH; i++) store(points + (i * PATCH + j) * plane + c, u[i]);
      }
    }
  }
}
static void transform_inputs(float *points, int64_t plane, const tiling *t, int64_t image, int64_t row) {
  transform_row(points, plane, t, image, row, 1);
}
static void transform_outputs(float *points, int64_t plane, const tiling *t, int64_t image, int64_t row) {
  transform_row(points, plane, t, image, row, 0);
}

/* ---- forward, and back_input as the forward of the mirrored weights ---- */

/* y (n, oh, ow, out) from tiles of x. weights: tap (kh, kw) of input i for 16 outputs is at weights + panel*panel_step + tap*tap_step +
 * i*input_step. */
typedef struct {
  tiling in;
  float *y;
  const float *weights;
  int64_t n, out, oh, ow, panel_step, tap_step, input_step;
  int mirrored;
} filtering;

/* u[panel][36][in][16] for panels p.. */
static void transform_weights(float *u, const filtering *f, int64_t p, int64_t panels) {
  int64_t in = f->in.channels;
  for (int64_t k = 0; k < panels; k++, u += POINTS * in * PANEL)
    for (int64_t i = 0; i < in; i++)
      for (int64_t lane = 0; lane < PANEL; lane += LANES) {
        const float *w = f->weights + (p + k) * f->panel_step + i * f->input_step + lane;
        vec half[3][PATCH];
        for (int r = 0; r < 3; r++) {
          vec g[3];
          for (int c = 0; c < 3; c++) g[c] = load(w + (f->mirrored ? 8 - r * 3 - c : r * 3 + c) * f->tap_step);
          weight_points(half[r], g);
        }
        for (int c = 0; c < PATCH; c++) {
          vec g[3] = {half[0][c], half[1][c], half[2][c]}, points[PATCH];
          weight_points(points, g);
          for (int r = 0; r < PATCH; r++) store(u + ((r * PATCH + c) * in + i) * PANEL + lane, points[r]);
        }
      }
}

/* Writes the 4x4 outputs of one tile, as far as they exist, from products m[36][width] with planes `plane` floats apart. */
static void write_tile(const filtering *f, const float *m, int64_t plane, int64_t image, int64_t row, int64_t column, int64_t channel,
                       int64_t width) {
  int64_t rows = min(TILE, f->oh - row * TILE), columns = min(TILE, f->ow - column * TILE);
  float *y = f->y + ((image * f->oh + row * TILE) * f->ow + column * TILE) * f->out + channel;
  for (int64_t lane = 0; lane < width; lane += LANES) {
    vec half[PATCH][TILE]; /* [point row][pixel column] */
    for (int i = 0; i < PATCH; i++) {
      vec d[PATCH];
      for (int j = 0; j < PATCH; j++) d[j] = load(m + (i * PATCH + j) * plane + lane);
      output_values(half[i], d);
    }
    for (int j = 0; j < columns; j++) {
      vec d[PATCH], value[TILE];
      for (int i = 0; i < PATCH; i++) d[i] = half[i][j];
      output_values(value, d);
      for (int i = 0; i < rows; i++) store(y + (i * f->ow + j) * f->out + lane, value[i]);
    }
  }
}

/* Tiles t0..t1, counted from tile row `first` of the batch, for `panels` panels from p; points hold the tiles from that row on. */
static void filter_tiles(const filtering *f, const float *points, int64_t plane, const float *u, float *m, int64_t first, int64_t t0,
                         int64_t t1, int64_t p, int64_t panels) {
  int64_t in = f->in.channels, width = panels * PANEL, m_plane = BLOCK_TILES * width + SKEW;
  for (int64_t t = t0; t < t1; t += BLOCK_TILES) {
    int64_t count = min(BLOCK_TILES, t1 - t);
    for (int64_t xi = 0; xi < POINTS; xi++)
      for (int64_t k = 0; k < count; k += PIXELS) {
        const float *a[PIXELS];
        float *to[PIXELS];
        for (int64_t i = 0; i < PIXELS; i++) { /* the last tile fills the block */
          a[i] = points + xi * plane + (t + min(k + i, count - 1)) * in;
          to[i] = m + xi * m_plane + min(k + i, count - 1) * width;
        }
        panel_dot((int)panels, to, a, u + xi * in * PANEL, 1, in, 0, 0, POINTS * in * PANEL, width);
      }
    for (int64_t k = 0; k < count; k++) {
      int64_t row = first + (t + k) / f->in.tile_columns, column = (t + k) % f->in.tile_columns;
      write_tile(f, m + k * width, m_plane, row / f->in.tile_rows, row % f->in.tile_rows, column, p * PANEL, width);
    }
  }
}

/* Many tiles: the transformed weights are kept, and each block of tiles goes through all panels while it is in a core's cache. */
static void filter_by_tiles(const filtering *f, float *u, float *points, int64_t plane, int64_t block_rows, float *m) {
  int64_t in = f->in.channels, rows = f->n * f->in.tile_rows, panels = panels_of(f->out), u_panel = POINTS * in * PANEL;
#pragma omp for
  for (int64_t p = 0; p < panels; p++) transform_weights(u + p * u_panel, f, p, 1);
#pragma omp for schedule(dynamic)
  for (int64_t first = 0; first < rows; first += block_rows) {
    int64_t count = min(block_rows, rows - first);
    for (int64_t r = 0; r < count; r++)
      transform_inputs(points + r * f->in.tile_columns * in, plane, &f->in, (first + r) / f->in.tile_rows, (first + r) % f->in.tile_rows);
    for (int64_t p = 0, some; p < panels; p += some) {
      some = panels - p >= WIDE ? WIDE : 1;
      filter_tiles(f, points, plane, u + p * u_panel, m, first, 0, count * f->in.tile_columns, p, some);
    }
  }
}

/* Few tiles, large weights: the transformed inputs are kept, and each panel's weights go through all tiles while they are in a cache. */
static void filter_by_panels(const filtering *f, float *u, float *points, int64_t plane, int64_t chunk_rows, float *m) {
  int64_t in = f->in.channels, rows = f->n * f->in.tile_rows, panels = panels_of(f->out), wides = ceil_div(panels, WIDE);
  for (int64_t first = 0; first < rows; first += chunk_rows) {
    int64_t count = min(chunk_rows, rows - first), tiles = count * f->in.tile_columns;
    int64_t pieces = min(ceil_div(tiles, BLOCK_TILES), ceil_div(omp_get_num_threads() * ITEMS_PER_THREAD, wides));
#pragma omp for
    for (int64_t r = 0; r < count; r++)
      transform_inputs(points + r * f->in.tile_columns * in, plane, &f->in, (first + r) / f->in.tile_rows, (first + r) % f->in.tile_rows);
#pragma omp for schedule(dynamic)
    for (int64_t item = 0; item < wides * pieces; item++) {
      int64_t p = item / pieces * WIDE, some = panels - p >= WIDE ? WIDE : 1, piece = item % pieces;
      transform_weights(u, f, p, some);
      filter_tiles(f, points, plane, u, m, first, piece * tiles / pieces, (piece + 1) * tiles / pieces, p, some);
    }
  }
}

/* pack: the weights are those of a forward convolution and are first brought into panels. */
static int filter(const char *op, filtering *f, const conv_shape *s, const float *w, int pack) {
  int64_t in = f->in.channels, panels = panels_of(f->out), rows = f->n * f->in.tile_rows, threads = omp_get_max_threads();
  int64_t row_size = POINTS * f->in.tile_columns * in, u_panel = POINTS * in * PANEL;
  int64_t block_rows = ceil_div(BLOCK_TILES, f->in.tile_columns), chunk_rows = max(1, CHUNK_BYTES / (row_size * (int64_t)sizeof(float)));
  chunk_rows = ceil_div(rows, ceil_div(rows, chunk_rows));
  int by_tiles = rows >= 2 * threads * block_rows && panels * u_panel * (int64_t)sizeof(float) <= WEIGHT_BYTES;
  int64_t plane = (by_tiles ? block_rows : chunk_rows) * f->in.tile_columns * in + SKEW;
  int64_t m_size = POINTS * (BLOCK_TILES * WIDE * PANEL + SKEW);
  int64_t points_size = (by_tiles ? threads : 1) * POINTS * plane, u_size = (by_tiles ? panels : threads * WIDE) * u_panel;
  int64_t packed_size = pack ? panels * 9 * in * PANEL : 0;
  int64_t bytes = (points_size + u_size + threads * m_size + packed_size + in) * (int64_t)sizeof(float);
  float *points = ty_alloc(bytes), *u = points + points_size, *m = u + u_size, *packed = m + threads * m_size;
  if (!points) return ty_fail("%s: no memory for %lld bytes of scratch", op, (long long)bytes);
  f->in.zeros = memset(packed + packed_size, 0, (size_t)in * sizeof(float));
  f->weights = pack ? packed : w;
#pragma omp parallel if (conv_work(s) > PARALLEL_WORK)
  {
    int64_t id = omp_get_thread_num();
    if (pack) {
#pragma omp for
      for (int64_t p = 0; p < panels; p++) ty_pack_weights(s, packed, w, p);
    }
    if (by_tiles) filter_by_tiles(f, u, points + id * POINTS * plane, plane, block_rows, m + id * m_size);
    else filter_by_panels(f, u + id * WIDE * u_panel, points, plane, chunk_rows, m + id * m_size);
  }
  ty_free(points, bytes);
  return 0;
}

static tiling tiles_of(const float *x, int64_t h, int64_t w, int64_t channels, int64_t oh, int64_t ow, int64_t border, int64_t size) {
  return (tiling){.x = x, .h = h, .w = w, .channels = channels, .tile_rows = ceil_div(oh, TILE), .tile_columns = ceil_div(ow, TILE),
                  .border = border, .size = size};
}

int ty_winograd_forward(const conv_shape *s, float *y, const float *x, const float *w) {
  filtering f = {.in = tiles_of(x, s->h, s->w, s->in, s->oh, s->ow, s->padding, PATCH), .y = y, .n = s->n, .out = s->out,
                 .oh = s->oh, .ow = s->ow, .panel_step = 9 * s->in * PANEL, .tap_step = s->in * PANEL, .input_step = PANEL};
  return filter("conv2d", &f, s, w, 1);
}

int ty_winograd_back_input(const conv_shape *s, float *dx, const float *dy, const float *w) {
  filtering f = {.in = tiles_of(dy, s->oh, s->ow, s->out, s->h, s->w, 2 - s->padding, PATCH), .y = dx, .n = s->n, .out = s->in,
                 .oh = s->h, .ow = s->w, .panel_step = PANEL, .tap_step = s->in, .input_step = 9 * s->in, .mirrored = 1};
  return filter("conv2d_back_input", &f, s, w, 0);
}

/* ---- back_weight ---- */

/* The weights' gradient from u[36][panel][rows][16], for input channels i0.. and panels p..: added to dw, or stored when first. */
static void write_weights(const conv_shape *s, float *dw, const float *u, int64_t rows, int64_t i0, int64_t p, int64_t panels, int first) {
  int64_t plane = panels * rows * PANEL;
  for (int64_t k = 0; k < panels * rows; k += 8) {
    float g[9][8][PANEL]; /* [tap][input][output] */
    for (int64_t i = 0; i < 8; i++)
      for (int64_t lane = 0; lane < PANEL; lane += LANES) {
        const float *from = u + (k + i) * PANEL + lane;
        vec half[3][PATCH];
        for (int c = 0; c < PATCH; c++) {
          vec d[PATCH], value[3];
          for (int r = 0; r < PATCH; r++) d[r] = load(from + (r * PATCH + c) * plane);
          weight_values(value, d);
          for (int r = 0; r < 3; r++) half[r][c] = value[r];
        }
        for (int r = 0; r < 3; r++) {
          vec value[3];
          weight_values(value, half[r]);
          for (int c = 0; c < 3; c++) store(g[r * 3 + c][i] + lane, value[c]);
        }
      }
    float *to = dw + (p + k / rows) * PANEL * 9 * s->in + i0 + k % rows;
    for (int64_t tap = 0; tap < 9; tap++)
      for (int64_t l = 0; l < PANEL; l += 8) {
        float block[8][8], *at = to + (l * 9 + tap) * s->in;
        transpose8(block[0], 8, &g[tap][0][l], PANEL);
        for (int64_t o = 0; o < 8; o++, at += 9 * s->in) {
          if (first) memcpy(at, block[o], sizeof block[o]);
          else *(eight *)at += *(const eight *)block[o];
        }
      }
  }
}

int ty_winograd_back_weight(const conv_shape *s, float *dw, const float *dy, const float *x) {
  tiling in = tiles_of(x, s->h, s->w, s->in, s->oh, s->ow, s->padding, PATCH);
  tiling out = tiles_of(dy, s->oh, s->ow, s->out, s->oh, s->ow, 0, TILE);
  int64_t per_image = in.tile_rows * in.tile_columns, wides = ceil_div(panels_of(s->out), WIDE);
  int64_t images = max(1, CHUNK_BYTES / (POINTS * per_image * (s->in + s->out) * (int64_t)sizeof(float)));
  images = ceil_div(s->n, ceil_div(s->n, images));
  int64_t in_plane = images * per_image * s->in + SKEW, out_plane = images * per_image * s->out + SKEW;
  int64_t u_size = POINTS * WIDE * BLOCK_INPUTS * PANEL, channels = max(s->in, s->out);
  int threads = omp_get_max_threads();
  int64_t bytes = (POINTS * (in_plane + out_plane) + threads * u_size + channels) * (int64_t)sizeof(float);
  float *in_points = ty_alloc(bytes), *out_points = in_points + POINTS * in_plane, *scratch = out_points + POINTS * out_plane;
  if (!in_points) return ty_fail("conv2d_back_weight: no memory for %lld bytes of scratch", (long long)bytes);
  in.zeros = out.zeros = memset(scratch + threads * u_size, 0, (size_t)channels * sizeof(float));
#pragma omp parallel if (conv_work(s) > PARALLEL_WORK)
  {
    float *u = scratch + omp_get_thread_num() * u_size;
    int64_t rows = PANEL; /* input channels of an item: more save loads, fewer keep all threads busy */
    int64_t want = omp_get_num_threads() * ITEMS_PER_THREAD;
    while (rows < BLOCK_INPUTS && s->in % (2 * rows) == 0 && s->in / (2 * rows) * wides >= want) rows *= 2;
    for (int64_t n = 0; n < s->n; n += images) {
      int64_t count = min(images, s->n - n), tiles = count * per_image;
#pragma omp for
      for (int64_t r = 0; r < 2 * count * in.tile_rows; r++) {
        int64_t k = r / 2, image = n + k / in.tile_rows, row = k % in.tile_rows;
        if (r % 2) transform_inputs(in_points + k * in.tile_columns * s->in, in_plane, &in, image, row);
        else transform_outputs(out_points + k * in.tile_columns * s->out, out_plane, &out, image, row);
      }
#pragma omp for schedule(dynamic)
      for (int64_t item = 0; item < s->in / rows * wides; item++) {
        int64_t p = item % wides * WIDE, panels = panels_of(s->out) - p >= WIDE ? WIDE : 1, i0 = item / wides * rows;
        pixel_loops loops = {{1, 1, tiles}, {0, 0, s->in}, {0, 0, s->out}};
        memset(u, 0, (size_t)(POINTS * panels * rows * PANEL) * sizeof *u);
        for (int64_t xi = 0; xi < POINTS; xi++)
          for (int64_t i = 0; i < rows; i += ROWS)
            panel_outer((int)panels, u + (xi * panels * rows + i) * PANEL, in_points + xi * in_plane + i0 + i,
                        out_points + xi * out_plane + p * PANEL, &loops, ROWS, PANEL, rows * PANEL);
        write_weights(s, dw, u, rows, i0, p, panels, n == 0);
      }
    }
  }
  ty_free(in_points, bytes);
  return 0;
}

/* Counts multiplications, and what the transforms cost in the same coin (measured). Direct convolution skips the taps on padding. */
int ty_winograd_pays(const conv_shape *s) {
  if (s->kh != 3 || s->kw != 3 || s->stride != 1 || s->padding > 2 || s->in % PANEL || s->out % PANEL) return 0;
  int64_t rows = 0, columns = 0;
  for (int64_t i = 0; i < s->oh; i++) rows += min(s->h, i - s->padding + 3) - max(0, i - s->padding);
  for (int64_t i = 0; i < s->ow; i++) columns += min(s->w, i - s->padding + 3) - max(0, i - s->padding);
  double tiles = (double)s->n * ceil_div(s->oh, TILE) * ceil_div(s->ow, TILE), products = (double)s->in * s->out;
  return (double)s->n * rows * columns * products > tiles * (POINTS * products + 400 * (s->in + s->out)) + 130 * products;
}

#endif
