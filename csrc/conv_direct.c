/* Direct float convolution without padded copies: pixels that see the same part of the kernel are taken together, so that the
 * taps that fall on padding are never computed. Small maps (2x2 under a 3x3 kernel) gain most.
 * Every sum has an order that depends on the shapes alone, not on the number of threads. */
#include "conv.h"
#ifndef TYCHO_DOUBLE
#include "panel.h"
#include <omp.h>

enum {
  ITEMS_PER_THREAD = 4,    /* pieces of work per thread, for balance */
  GROUP_BYTES = 1 << 18,   /* input of one piece of work: what stays in a core's second-level cache */
  CHUNK_PIXELS = 240,      /* pixels that meet one piece of the weights */
  PIECE = 256,             /* values of one dot product: its weights stay in the first-level cache */
  OWN_BYTES = 512 << 10,   /* input that meets each panel of weights as a whole, when it is not larger */
  SKEW = 16                /* floats between its images, so that their pixels do not fall on one cache set */
};

/* ---- correlation: what forward and back_input have in common ---- */

/* One axis: output j sees inputs j*step + start + tap for tap in [0, taps), of which those inside [0, size) exist. */
typedef struct { int64_t count, step, start, taps, size; } axis;
/* Neighbouring outputs that see the same taps [tap, tap + taps); input is what the first output's first tap sees. */
typedef struct { int64_t first, count, tap, taps, input; } span;

static void taps_of(const axis *a, int64_t j, int64_t *tap, int64_t *taps) {
  int64_t at = j * a->step + a->start;
  *tap = max(0, -at);
  *taps = max(0, min(a->taps, a->size - at) - *tap);
}
static span span_from(const axis *a, int64_t j, int64_t end) {
  span s = {.first = j, .count = 1};
  taps_of(a, j, &s.tap, &s.taps);
  s.input = s.taps ? j * a->step + a->start + s.tap : 0;
  for (int64_t tap, taps; j + s.count < end; s.count++) {
    taps_of(a, j + s.count, &tap, &taps);
    if (taps != s.taps || (taps && tap != s.tap)) break;
  }
  return s;
}

/* y[pixel][out] = sum over taps and in of x * weights; strides in floats. weights is [out/16][h.taps][w.taps][in][16], which pack makes of
 * the convolution's, for panel p. */
typedef struct correlation {
  const float *x;
  float *y;
  float *weights;
  axis h, w;
  int64_t n, in, out;
  int64_t x_image, x_row, x_pixel, y_image, y_row, y_pixel;
  void (*pack)(const struct correlation *c, const conv_shape *s, float *to, const float *w, int64_t p);
  int64_t kh, kw; /* the kernel's first taps that it has */
} correlation;

static int64_t panel_size(const correlation *c) { return c->h.taps * c->w.taps * c->in * PANEL; }

/* Pixels of images n0..n1 that see no tap at all. */
static void clear_span(const correlation *c, const span *row, const span *col, int64_t n0, int64_t n1, int64_t p0, int64_t p1) {
  size_t bytes = (size_t)(min(c->out, p1 * PANEL) - p0 * PANEL) * sizeof(float);
  for (int64_t n = n0; n < n1; n++)
    for (int64_t i = 0; i < row->count; i++)
      for (int64_t j = 0; j < col->count; j++)
        memset(c->y + n * c->y_image + (row->first + i) * c->y_row + (col->first + j) * c->y_pixel + p0 * PANEL, 0, bytes);
}

/* Pixels of images n0..n1 that see the same taps, panels p0..p1. */
static void correlate_span(const correlation *c, const span *row, const span *col, int64_t n0, int64_t n1, int64_t p0, int64_t p1) {
  int64_t b_row = c->w.taps * c->in * PANEL, b_panel = c->h.taps * b_row, run = col->taps * c->in;
  int64_t splits = ceil_div(run, PIECE), together = max(1, PIECE / max(1, run));
  const float *weights = c->weights + row->tap * b_row + col->tap * c->in * PANEL;
  const float *x = c->x + row->input * c->x_row + col->input * c->x_pixel;
  float *y = c->y + row->first * c->y_row + col->first * c->y_pixel;
  int64_t total = (n1 - n0) * row->count * col->count, i = n0, j = 0, k = 0;
  const float *a_at[CHUNK_PIXELS];
  float *y_at[CHUNK_PIXELS];
  for (int64_t done = 0; done < total; done += CHUNK_PIXELS) {
    int64_t count = min(CHUNK_PIXELS, total - done), blocks = ceil_div(count, PIXELS);
    for (int64_t t = 0; t < count; t++) {
      a_at[t] = x + i * c->x_image + j * c->h.step * c->x_row + k * c->w.step * c->x_pixel;
      y_at[t] = y + i * c->y_image + j * c->y_row + k * c->y_pixel;
      if (++k == col->count) {
        k = 0;
        if (++j == row->count) j = 0, i++;
      }
    }
    for (int64_t p = p0; p < p1; p++)
      for (int64_t r = 0; r < row->taps; r += together)
        for (int64_t s = 0; s < splits; s++) {
          int64_t from = s * run / splits;
          dot_depth d = {min(together, row->taps - r), (s + 1) * run / splits - from, c->x_row, b_row};
          const float *b = weights + p * b_panel + r * b_row + from * PANEL;
          for (int64_t t = 0; t < blocks; t++) {
            int64_t first = t * count / blocks, some = (t + 1) * count / blocks - first;
            panel_dot(some, y_at + first, p * PANEL, a_at + first, r * c->x_row + from, b, &d, min(PANEL, c->out - p * PANEL), r + s > 0);
          }
        }
  }
}

/* Images n0..n1, output rows r0..r1, panels p0..p1. */
static void correlate_piece(const correlation *c, int64_t n0, int64_t n1, int64_t r0, int64_t r1, int64_t p0, int64_t p1) {
  for (int64_t r = r0; r < r1;) {
    span row = span_from(&c->h, r, r1);
    for (int64_t q = 0; q < c->w.count;) {
      span col = span_from(&c->w, q, c->w.count);
      if (row.taps && col.taps && c->in) correlate_span(c, &row, &col, n0, n1, p0, p1);
      else clear_span(c, &row, &col, n0, n1, p0, p1);
      q += col.count;
    }
    r += row.count;
  }
}

/* Shares the work among the threads of the enclosing parallel region; does not wait for them at the end. */
static void correlate(const correlation *c) {
  int64_t want = omp_get_num_threads() * ITEMS_PER_THREAD, panels = panels_of(c->out);
  int64_t image_bytes = c->x_image * (int64_t)sizeof(float);
  int64_t group = max(1, min(ceil_div(c->n, want), GROUP_BYTES / max(1, image_bytes)));
  if (c->h.count * c->w.count < 8 * PIXELS) group = ceil_div(group, PIXELS) * PIXELS; /* whole blocks at the edges of small maps */
  int64_t groups = ceil_div(c->n, group);
  int64_t splits = min(panels, ceil_div(want, groups)), bands = min(c->h.count, ceil_div(want, groups * splits));
#pragma omp for schedule(dynamic) nowait
  for (int64_t item = 0; item < groups * splits * bands; item++) {
    if (ty_is_unwanted()) continue;
    int64_t s = item % splits, b = item / splits % bands, g = item / splits / bands;
    correlate_piece(c, g * group, min(c->n, (g + 1) * group), b * c->h.count / bands, (b + 1) * c->h.count / bands, s * panels / splits,
                    (s + 1) * panels / splits);
  }
}

/* Runs `count` correlations of one convolution. Few pixels: each panel of weights is packed by the core that needs it, just before. */
static int run(const char *op, const conv_shape *s, correlation *list, int64_t count, const float *w) {
  int64_t panels = panels_of(list->out), size = 0, largest = 0;
  for (int64_t i = 0; i < count; i++) {
    size += panels * panel_size(list + i);
    largest = max(largest, panel_size(list + i));
  }
  int own = list->n * list->x_image * (int64_t)sizeof(float) <= OWN_BYTES && count * panels >= 2 * omp_get_max_threads();
  int64_t n = list->n, image = list->x_image + SKEW, my_size = largest + n * image;
  int64_t bytes = (own ? omp_get_max_threads() * my_size : size) * (int64_t)sizeof(float);
  float *packed = ty_alloc(bytes), *next = packed;
  if (!packed) return ty_no_scratch(op, bytes);
  for (int64_t i = 0; i < count; i++) {
    list[i].weights = next;
    next += panels * panel_size(list + i);
  }
#pragma omp parallel if (conv_work(s) > PARALLEL_WORK)
  {
    float *mine = packed + omp_get_thread_num() * my_size, *x = mine + largest;
    for (int64_t i = 0; i < n && own; i++) memcpy(x + i * image, list->x + i * list->x_image, (size_t)list->x_image * sizeof *x);
#pragma omp for schedule(dynamic)
    for (int64_t item = 0; item < count * panels; item++) {
      if (ty_is_unwanted()) continue;
      correlation c = list[item / panels];
      int64_t p = item % panels, at = p * panel_size(&c);
      c.pack(&c, s, own ? mine : c.weights + at, w, p);
      if (!own) continue;
      c.weights = mine - at;
      c.x = x;
      c.x_image = image;
      correlate_piece(&c, 0, c.n, 0, c.h.count, p, p + 1);
    }
    for (int64_t i = 0; i < count && !own; i++) correlate(list + i);
  }
  ty_free(packed, bytes);
  return 0;
}

/* ---- forward ---- */

void ty_pack_weights(const conv_shape *s, float *to, const float *w, int64_t p) {
  int64_t depth = s->kh * s->kw * s->in, width = min(PANEL, s->out - p * PANEL), blocked = width == PANEL ? depth / 8 * 8 : 0;
  const float *from = w + p * PANEL * depth;
  for (int64_t k = 0; k < blocked; k += 8)
    for (int64_t l = 0; l < PANEL; l += 8) transpose8(to + k * PANEL + l, PANEL, from + l * depth + k, depth);
  for (int64_t k = blocked; k < depth; k++)
    for (int64_t l = 0; l < PANEL; l++) to[k * PANEL + l] = l < width ? from[l * depth + k] : 0;
}
static void pack_forward(const correlation *c, const conv_shape *s, float *to, const float *w, int64_t p) {
  (void)c;
  ty_pack_weights(s, to, w, p);
}

int ty_direct_forward(const conv_shape *s, float *y, const float *x, const float *w) {
  if (s->n * s->out == 0) return 0;
  correlation c = {.x = x, .y = y, .n = s->n, .in = s->in, .out = s->out, .pack = pack_forward,
                   .h = {s->oh, s->stride, -s->padding, s->kh, s->h}, .w = {s->ow, s->stride, -s->padding, s->kw, s->w},
                   .x_image = s->h * s->w * s->in, .x_row = s->w * s->in, .x_pixel = s->in,
                   .y_image = s->oh * s->ow * s->out, .y_row = s->ow * s->out, .y_pixel = s->out};
  return run("conv2d", s, &c, 1, w);
}

/* ---- back_input ----
 * The inputs whose row and column have the same remainders modulo the stride see the same taps: each such phase is a
 * correlation of step 1 with the taps in reverse order. With stride 1 there is one. */

/* The inputs i = first, first + stride, ... that meet the kernel's taps remainder, remainder + stride, ... */
static axis phase_axis(int64_t remainder, int64_t stride, int64_t padding, int64_t kernel, int64_t input, int64_t output, int64_t *first) {
  *first = ((remainder - padding) % stride + stride) % stride;
  axis a = {.step = 1, .size = output};
  a.count = *first < input ? (input - 1 - *first) / stride + 1 : 0;
  a.taps = remainder < kernel ? ceil_div(kernel - remainder, stride) : 0;
  a.start = (*first + padding - remainder) / stride - (a.taps - 1);
  return a;
}

static void pack_back_input(const correlation *c, const conv_shape *s, float *to, const float *w, int64_t p) {
  int64_t width = min(PANEL, s->in - p * PANEL), step = s->kh * s->kw * s->in;
  for (int64_t t = c->h.taps - 1; t >= 0; t--)
    for (int64_t u = c->w.taps - 1; u >= 0; u--) {
      const float *from = w + ((c->kh + t * s->stride) * s->kw + c->kw + u * s->stride) * s->in + p * PANEL;
      for (int64_t o = 0; o < s->out; o++, to += PANEL, from += step)
        for (int64_t l = 0; l < PANEL; l++) to[l] = l < width ? from[l] : 0;
    }
}

int ty_direct_back_input(const conv_shape *s, float *dx, const float *dy, const float *w) {
  int64_t phases = s->stride * s->stride, list_bytes = phases * (int64_t)sizeof(correlation);
  if (s->n * s->in == 0) return 0;
  correlation *list = ty_alloc(list_bytes);
  if (!list) return ty_no_scratch("conv2d_back_input", list_bytes);
  for (int64_t i = 0; i < phases; i++) {
    int64_t row, col;
    correlation c = {.x = dy, .n = s->n, .in = s->out, .out = s->in, .pack = pack_back_input, .kh = i / s->stride, .kw = i % s->stride,
                     .x_image = s->oh * s->ow * s->out, .x_row = s->ow * s->out, .x_pixel = s->out,
                     .y_image = s->h * s->w * s->in, .y_row = s->stride * s->w * s->in, .y_pixel = s->stride * s->in};
    c.h = phase_axis(c.kh, s->stride, s->padding, s->kh, s->h, s->oh, &row);
    c.w = phase_axis(c.kw, s->stride, s->padding, s->kw, s->w, s->ow, &col);
    c.y = dx + (row * s->w + col) * s->in;
    list[i] = c;
  }
  int failed = run("conv2d_back_input", s, list, phases, w);
  ty_free(list, list_bytes);
  return failed;
}

#endif
