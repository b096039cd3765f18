/* Winograd convolution: the weight gradient, by the transposed transforms. */
#ifndef TYCHO_DOUBLE
#include "winograd.h"

enum {
  BAND_TILES = 240, /* a band of one panel of dy stays in the first-level cache */
  BLOCK_PANELS = 4, /* panels of inputs that meet it there */
  PART_TILES = 128  /* tiles whose points one core keeps to itself */
};

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
    for (int64_t tap = 0; tap < 9; tap++) panel_store(to + tap * s->in, 9 * s->in, g[tap][0], 8, PANEL, !first);
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
  int64_t x_plane = ins * panel + SKEW, dy_plane = outs * panel + SKEW, own = planes * (x_plane + dy_plane + s->in * s->out);
  int64_t bytes = (parts * size + omp_get_max_threads() * own) * (int64_t)sizeof(float);
  float *sums = ty_alloc(bytes);
  if (!sums) return ty_no_scratch("conv2d_back_weight", bytes);
#pragma omp parallel if (conv_work(s) > PARALLEL_WORK)
  {
    float *x_points = sums + parts * size + omp_get_thread_num() * own, *dy_points = x_points + planes * x_plane;
    float *u = dy_points + planes * dy_plane;
#pragma omp for schedule(dynamic)
    for (int64_t part = 0; part < parts; part++) {
      int64_t first = part * chunks / parts, end = (part + 1) * chunks / parts;
      for (int64_t chunk = first; chunk < end && !ty_is_unwanted(); chunk++) {
        int64_t r0 = chunk * rows / chunks, count = (chunk + 1) * rows / chunks - r0;
        for (int64_t r = 0; r < count; r++) {
          int64_t image = (r0 + r) / in->tile_rows, row = (r0 + r) % in->tile_rows, at = r * in->tile_columns * PANEL;
          transform_inputs(x_points + at, x_plane, PANEL, panel, in, image, row);
          transform_outputs(dy_points + at, dy_plane, PANEL, panel, out, image, row);
        }
        multiply_points(u, planes, (plane_set){x_points, x_plane, panel}, (plane_set){dy_points, dy_plane, panel}, count * in->tile_columns, ins,
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
  int64_t x_plane = in_panels * panel + SKEW, dy_plane = out_panels * panel + SKEW;
  int64_t u_size = planes * BLOCK_PANELS * PANEL * PANEL, threads = omp_get_max_threads();
  int64_t bytes = (planes * (x_plane + dy_plane) + threads * u_size) * (int64_t)sizeof(float);
  float *x_points = ty_alloc(bytes), *dy_points = x_points + planes * x_plane, *scratch = dy_points + planes * dy_plane;
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
        if (r % 2) transform_inputs(x_points + at, x_plane, PANEL, panel, in, image, row);
        else transform_outputs(dy_points + at, dy_plane, PANEL, panel, out, image, row);
      }
      if (ended) break;
#pragma omp for schedule(dynamic)
      for (int64_t item = 0; item < groups * out_panels; item++) {
        if (ty_is_unwanted()) continue;
        int64_t p = item / groups, first = item % groups * in_panels / groups, end = (item % groups + 1) * in_panels / groups;
        multiply_points(u, planes, (plane_set){x_points + first * panel, x_plane, panel}, (plane_set){dy_points + p * panel, dy_plane, panel},
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

#endif
