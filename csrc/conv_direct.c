/* Direct float convolution without padded copies: pixels that see the same part of the kernel are taken together, so that the
 * taps that fall on padding are never computed. Small maps (2x2 under a 3x3 kernel) gain most.
 * Every sum has an order that depends on the shapes alone, not on the number of threads. */
#include "conv.h"
#ifndef TYCHO_DOUBLE
#include "panel.h"
#include <omp.h>

enum {
  ITEMS_PER_THREAD = 4,    /* pieces of work per thread, for balance */
  GROUP_BYTES = 1 << 20,   /* input of one piece of work: what stays in a core's cache */
  BLOCK_PIXELS = 128,      /* of the weight gradient: a block of dy stays in the first-level cache */
  MAX_PARTS = 32,          /* partial sums of the weight gradient */
  PARTS_BYTES = 8 << 20
};

static int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

static int no_memory(const char *op, int64_t bytes) {
  return ty_fail("%s: no memory for %lld bytes of scratch", op, (long long)bytes);
}

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

/* y[pixel][out] = sum over taps and in of x * weights; strides in floats. weights is [out/16][h.taps][w.taps][in][16]. */
typedef struct {
  const float *x;
  float *y;
  const float *weights;
  axis h, w;
  int64_t n, in, out;
  int64_t x_image, x_row, x_pixel, y_image, y_row, y_pixel;
} correlation;

/* Images n0..n1, output rows r0..r1, panels p0..p1. */
static void correlate_piece(const correlation *c, int64_t n0, int64_t n1, int64_t r0, int64_t r1, int64_t p0, int64_t p1) {
  int64_t b_row = c->w.taps * c->in * PANEL, b_panel = c->h.taps * b_row;
  for (int64_t p = p0, panels; p < p1; p += panels) {
    panels = p1 - p >= WIDE ? WIDE : 1;
    int64_t width = min(panels * PANEL, c->out - p * PANEL);
    for (int64_t r = r0; r < r1;) {
      span row = span_from(&c->h, r, r1);
      for (int64_t q = 0; q < c->w.count;) {
        span col = span_from(&c->w, q, c->w.count);
        const float *b = c->weights + p * b_panel + row.tap * b_row + col.tap * c->in * PANEL;
        const float *x = c->x + row.input * c->x_row + col.input * c->x_pixel;
        float *y = c->y + row.first * c->y_row + col.first * c->y_pixel + p * PANEL;
        int64_t x_row = c->h.step * c->x_row, x_col = c->w.step * c->x_pixel;
        int64_t total = (n1 - n0) * row.count * col.count, i = n0, j = 0, k = 0;
        const float *a_at[PIXELS];
        float *y_at[PIXELS];
        for (int64_t t = 0; t < total;) {
          for (int u = 0; u < PIXELS; u++) {
            a_at[u] = x + i * c->x_image + j * x_row + k * x_col;
            y_at[u] = y + i * c->y_image + j * c->y_row + k * c->y_pixel;
            if (++t >= total) continue; /* the last pixel fills the block */
            if (++k == col.count) {
              k = 0;
              if (++j == row.count) j = 0, i++;
            }
          }
          panel_dot((int)panels, y_at, a_at, b, row.taps, col.taps * c->in, c->x_row, b_row, b_panel, width);
        }
        q += col.count;
      }
      r += row.count;
    }
  }
}

/* Shares the work among the threads of the enclosing parallel region; does not wait for them at the end. */
static void correlate(const correlation *c) {
  int64_t want = omp_get_num_threads() * ITEMS_PER_THREAD, panels = panels_of(c->out), wides = ceil_div(panels, WIDE);
  int64_t image_bytes = c->x_image * (int64_t)sizeof(float);
  int64_t group = max(1, min(ceil_div(c->n, want), GROUP_BYTES / max(1, image_bytes)));
  if (c->h.count * c->w.count < 8 * PIXELS) group = ceil_div(group, PIXELS) * PIXELS; /* whole blocks at the edges of small maps */
  int64_t groups = ceil_div(c->n, group);
  int64_t splits = min(wides, ceil_div(want, groups)), bands = min(c->h.count, ceil_div(want, groups * splits));
#pragma omp for schedule(dynamic) nowait
  for (int64_t item = 0; item < groups * splits * bands; item++) {
    int64_t s = item % splits, b = item / splits % bands, g = item / splits / bands;
    correlate_piece(c, g * group, min(c->n, (g + 1) * group), b * c->h.count / bands, (b + 1) * c->h.count / bands,
                    s * wides / splits * WIDE, min(panels, (s + 1) * wides / splits * WIDE));
  }
}

/* ---- forward ---- */

void ty_pack_weights(const conv_shape *s, float *packed, const float *w, int64_t p) {
  int64_t depth = s->kh * s->kw * s->in, width = min(PANEL, s->out - p * PANEL), blocked = width == PANEL ? depth / 8 * 8 : 0;
  float *to = packed + p * depth * PANEL;
  const float *from = w + p * PANEL * depth;
  for (int64_t k = 0; k < blocked; k += 8)
    for (int64_t l = 0; l < PANEL; l += 8) transpose8(to + k * PANEL + l, PANEL, from + l * depth + k, depth);
  for (int64_t k = blocked; k < depth; k++)
    for (int64_t l = 0; l < PANEL; l++) to[k * PANEL + l] = l < width ? from[l * depth + k] : 0;
}

int ty_direct_forward(const conv_shape *s, float *y, const float *x, const float *w) {
  int64_t depth = s->kh * s->kw * s->in, panels = panels_of(s->out), bytes = panels * depth * PANEL * (int64_t)sizeof(float);
  if (s->n * s->out == 0) return 0;
  float *packed = ty_alloc(bytes);
  if (!packed) return no_memory("conv2d", bytes);
  correlation c = {.x = x, .y = y, .weights = packed, .n = s->n, .in = s->in, .out = s->out,
                   .h = {s->oh, s->stride, -s->padding, s->kh, s->h}, .w = {s->ow, s->stride, -s->padding, s->kw, s->w},
                   .x_image = s->h * s->w * s->in, .x_row = s->w * s->in, .x_pixel = s->in,
                   .y_image = s->oh * s->ow * s->out, .y_row = s->ow * s->out, .y_pixel = s->out};
#pragma omp parallel if (conv_work(s) > PARALLEL_WORK)
  {
#pragma omp for
    for (int64_t p = 0; p < panels; p++) ty_pack_weights(s, packed, w, p);
    correlate(&c);
  }
  ty_free(packed, bytes);
  return 0;
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

int ty_direct_back_input(const conv_shape *s, float *dx, const float *dy, const float *w) {
  int64_t phases = s->stride * s->stride, panels = panels_of(s->in);
  int64_t bytes = panels * s->kh * s->kw * s->out * PANEL * (int64_t)sizeof(float), list_bytes = phases * (int64_t)sizeof(correlation);
  if (s->n * s->in == 0) return 0;
  float *packed = ty_alloc(bytes);
  correlation *list = ty_alloc(list_bytes);
  if (!packed || !list) {
    ty_free(packed, bytes);
    ty_free(list, list_bytes);
    return no_memory("conv2d_back_input", bytes + list_bytes);
  }
  float *next = packed;
  for (int64_t i = 0; i < phases; i++) {
    int64_t row, col;
    correlation c = {.x = dy, .weights = next, .n = s->n, .in = s->out, .out = s->in,
                     .x_image = s->oh * s->ow * s->out, .x_row = s->ow * s->out, .x_pixel = s->out,
                     .y_image = s->h * s->w * s->in, .y_row = s->stride * s->w * s->in, .y_pixel = s->stride * s->in};
    c.h = phase_axis(i / s->stride, s->stride, s->padding, s->kh, s->h, s->oh, &row);
    c.w = phase_axis(i % s->stride, s->stride, s->padding, s->kw, s->w, s->ow, &col);
    c.y = dx + (row * s->w + col) * s->in;
    next += panels * c.h.taps * c.w.taps * s->out * PANEL;
    list[i] = c;
  }
#pragma omp parallel if (conv_work(s) > PARALLEL_WORK)
  {
#pragma omp for
    for (int64_t item = 0; item < phases * panels; item++) {
      int64_t i = item / panels, p = item % panels, width = min(PANEL, s->in - p * PANEL);
      const correlation *c = list + i;
      float *to = (float *)c->weights + p * c->h.taps * c->w.taps * s->out * PANEL;
      for (int64_t t = c->h.taps - 1; t >= 0; t--)
        for (int64_t u = c->w.taps - 1; u >= 0; u--) {
          int64_t kh = i / s->stride + t * s->stride, kw = i % s->stride + u * s->stride;
          for (int64_t o = 0; o < s->out; o++, to += PANEL) {
            const float *from = w + ((o * s->kh + kh) * s->kw + kw) * s->in + p * PANEL;
            for (int64_t l = 0; l < PANEL; l++) to[l] = l < width ? from[l] : 0;
          }
        }
    }
    for (int64_t i = 0; i < phases; i++) correlate(list + i);
  }
  ty_free(packed, bytes);
  ty_free(list, list_bytes);
  return 0;
}

/* ---- back_weight ---- */

/* The outputs j in [from, to) for which j*stride + offset lies in [0, size). */
static void valid_outputs(int64_t *from, int64_t *to, int64_t stride, int64_t offset, int64_t size) {
  if (offset < 0) *from = max(*from, ceil_div(-offset, stride));
  *to = size - 1 - offset < 0 ? *from : max(*from, min(*to, (size - 1 - offset) / stride + 1));
}

/* dy[images n0..n1, rows r0..r1][panel p] -> [pixel][16], missing channels zero. */
static void pack_gradient(const conv_shape *s, float *to, const float *dy, int64_t n0, int64_t n1, int64_t r0, int64_t r1, int64_t p) {
  int64_t width = min(PANEL, s->out - p * PANEL);
  for (int64_t n = n0; n < n1; n++) {
    const float *from = dy + (n * s->oh + r0) * s->ow * s->out + p * PANEL;
    for (int64_t i = 0; i < (r1 - r0) * s->ow; i++, from += s->out, to += PANEL)
      for (int64_t l = 0; l < PANEL; l++) to[l] = l < width ? from[l] : 0;
  }
}

/* x[images n0..n1, rows top..bottom] with columns padded: [image][row][(ow-1)*stride + kw][in]. */
static void pad_columns(const conv_shape *s, float *to, const float *x, int64_t n0, int64_t n1, int64_t top, int64_t bottom) {
  int64_t wide = (s->ow - 1) * s->stride + s->kw, copy = min(s->w, wide - s->padding);
  for (int64_t n = n0; n < n1; n++)
    for (int64_t r = top; r < bottom; r++, to += wide * s->in) {
      memset(to, 0, (size_t)(wide * s->in) * sizeof *to);
      if (copy > 0) memcpy(to + s->padding * s->in, x + (n * s->h + r) * s->w * s->in, (size_t)(copy * s->in) * sizeof *to);
    }
}

/* Where one kernel row reads x: pixel (image, row, column) of x is at base + image*image + row*row + column*pixel. */
typedef struct { const float *base; int64_t image, row, column; } window;

/* sums[panel][kh][kw][in][16] += the share of images n0..n1 and output rows r0..r1, for panels p0..p1. */
static void weight_block(const conv_shape *s, float *sums, const float *dy, const float *x, float *scratch, int64_t n0, int64_t n1,
                         int64_t r0, int64_t r1, int64_t p0, int64_t p1) {
  int64_t pixels = (n1 - n0) * (r1 - r0) * s->ow, depth = s->kh * s->kw * s->in;
  for (int64_t p = p0; p < p1; p++) pack_gradient(s, scratch + (p - p0) * pixels * PANEL, dy, n0, n1, r0, r1, p);
  /* With few channels, the taps of one kernel row are one contiguous run, once the columns are padded. */
  int merged = s->in < PANEL && s->kw > 1;
  window at = {x + n0 * s->h * s->w * s->in, s->h * s->w * s->in, s->w * s->in, 0};
  if (merged) {
    int64_t top = max(0, r0 * s->stride - s->padding), bottom = min(s->h, (r1 - 1) * s->stride - s->padding + s->kh);
    int64_t wide = (s->ow - 1) * s->stride + s->kw;
    float *padded = scratch + (p1 - p0) * pixels * PANEL;
    pad_columns(s, padded, x, n0, n1, top, bottom);
    at = (window){padded - top * wide * s->in, max(0, bottom - top) * wide * s->in, wide * s->in, s->padding * s->in};
  }
  int64_t taps = merged ? 1 : s->kw, run = merged ? s->kw * s->in : s->in;
  for (int64_t kh = 0; kh < s->kh; kh++) {
    int64_t top = r0, bottom = r1;
    valid_outputs(&top, &bottom, s->stride, kh - s->padding, s->h);
    for (int64_t kw = 0; kw < taps; kw++) {
      int64_t left = 0, right = s->ow;
      if (!merged) valid_outputs(&left, &right, s->stride, kw - s->padding, s->w);
      if (top == bottom || left == right) continue;
      const float *a = at.base + (top * s->stride - s->padding + kh) * at.row + (left * s->stride - s->padding + kw) * s->in + at.column;
      const float *b = scratch + ((top - r0) * s->ow + left) * PANEL;
      int64_t rows = bottom - top, columns = right - left, images = n1 - n0;
      int64_t a_row = s->stride * at.row, a_column = s->stride * s->in, b_row = s->ow * PANEL, b_image = (r1 - r0) * b_row;
      pixel_loops loops = {{images, rows, columns}, {at.image, a_row, a_column}, {b_image, b_row, PANEL}};
      if (columns < images) loops = (pixel_loops){{rows, columns, images}, {a_row, a_column, at.image}, {b_row, PANEL, b_image}};
      for (int64_t p = p0, panels; p < p1; p += panels) {
        panels = p1 - p >= WIDE ? WIDE : 1;
        float *c = sums + p * depth * PANEL + (kh * s->kw + kw) * s->in * PANEL;
        for (int64_t k = 0; k < run; k += ROWS)
          panel_outer((int)panels, c + k * PANEL, a + k, b + (p - p0) * pixels * PANEL, &loops, min(ROWS, run - k), pixels * PANEL,
                      depth * PANEL);
      }
    }
  }
}

int ty_direct_back_weight(const conv_shape *s, float *dw, const float *dy, const float *x) {
  int64_t depth = s->kh * s->kw * s->in, panels = panels_of(s->out), wides = ceil_div(panels, WIDE);
  int64_t size = panels * depth * PANEL, map = s->oh * s->ow;
  if (s->out * depth == 0) return 0;
  if (s->n == 0) {
    memset(dw, 0, (size_t)(s->out * depth) * sizeof *dw);
    return 0;
  }
  /* Groups of images have their own sums; the groups depend on the shapes only. */
  int64_t groups = min(min(s->n, MAX_PARTS), max(1, PARTS_BYTES / (size * (int64_t)sizeof(float))));
  groups = min(groups, ceil_div(s->n * map, BLOCK_PIXELS));
  int64_t splits = min(wides, ceil_div(MAX_PARTS, groups));
  int64_t rows = min(s->oh, ceil_div(BLOCK_PIXELS, s->ow)), images = rows < s->oh ? 1 : max(1, BLOCK_PIXELS / map);
  int64_t own = images * rows * s->ow * ceil_div(wides, splits) * WIDE * PANEL +
                (s->in < PANEL ? images * ((rows - 1) * s->stride + s->kh) * ((s->ow - 1) * s->stride + s->kw) * s->in : 0);
  own = ceil_div(own, PANEL) * PANEL;
  int64_t bytes = (groups * size + omp_get_max_threads() * own) * (int64_t)sizeof(float);
  float *sums = ty_alloc(bytes), *scratch = sums + groups * size;
  if (!sums) return no_memory("conv2d_back_weight", bytes);
#pragma omp parallel if (conv_work(s) > PARALLEL_WORK)
  {
#pragma omp for schedule(dynamic)
    for (int64_t item = 0; item < groups * splits; item++) {
      int64_t g = item / splits, q = item % splits, first = g * s->n / groups, end = (g + 1) * s->n / groups;
      int64_t p0 = q * wides / splits * WIDE, p1 = min(panels, (q + 1) * wides / splits * WIDE);
      memset(sums + g * size + p0 * depth * PANEL, 0, (size_t)((p1 - p0) * depth * PANEL) * sizeof *sums);
      for (int64_t n = first; n < end; n += images)
        for (int64_t r = 0; r < s->oh; r += rows)
          weight_block(s, sums + g * size, dy, x, scratch + omp_get_thread_num() * own, n, min(end, n + images), r, min(s->oh, r + rows),
                       p0, p1);
    }
#pragma omp for collapse(2)
    for (int64_t p = 0; p < panels; p++)
      for (int64_t k0 = 0; k0 < depth; k0 += PANEL) {
        float total[PANEL][PANEL] = {{0}};
        int64_t length = min(PANEL, depth - k0);
        for (int64_t g = 0; g < groups; g++)
          for (int64_t k = 0; k < length; k++)
            for (int64_t l = 0; l < PANEL; l++) total[k][l] += sums[g * size + (p * depth + k0 + k) * PANEL + l];
        float *to = dw + p * PANEL * depth + k0;
        int64_t width = min(PANEL, s->out - p * PANEL);
        if (width == PANEL && length == PANEL) {
          for (int64_t l = 0; l < PANEL; l += 8)
            for (int64_t k = 0; k < PANEL; k += 8) transpose8(to + l * depth + k, depth, &total[k][l], PANEL);
          continue;
        }
        for (int64_t l = 0; l < width; l++)
          for (int64_t k = 0; k < length; k++) to[l * depth + k] = total[k][l];
      }
  }
  ty_free(sums, bytes);
  return 0;
}

#endif
