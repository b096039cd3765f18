/* The weight gradient of direct float convolution.
 * Images are first packed to panels, so that the inner loop reads whole cache lines; a panel of dy against a panel of x gives 16x16
 * weights for each tap. Inputs of fewer than 16 channels keep their layout: the taps of a kernel row are then one run of values, and as many
 * for each pixel that packing dy would not pay.
 * Every sum has an order that depends on the shapes alone, not on the number of threads. */
#include "conv.h"
#ifndef TYCHO_DOUBLE
#include "panel.h"
#include <omp.h>

enum {
  BAND_PIXELS = 256,      /* a band of one panel of dy stays in the first-level cache */
  PACKED_BYTES = 4 << 20, /* packed images that the cores share */
  PART_BYTES = 1 << 20,   /* packed images of one core */
  ADD_BLOCK = 512         /* sums of parts that stay in the first-level cache */
};

/* x packed to [block][image][row][column][width], padding included, without the pixels between the windows of a stride beyond the
 * kernel: output row j sees packed rows j * row_step + kh. dy packed to [panel][image][pixel][16], or as it is. */
typedef struct {
  const conv_shape *s;
  float *x, *packed_dy;
  const float *dy;
  int64_t images, blocks, width, rows, columns, row_step, column_step, dy_panel, dy_pixel;
  int narrow, keeps_dy;
} packing;

static packing packing_of(const conv_shape *s) {
  packing k = {.s = s, .row_step = min(s->stride, s->kh), .column_step = min(s->stride, s->kw), .narrow = s->in < PANEL};
  k.keeps_dy = k.narrow && s->out % PANEL == 0;
  k.blocks = k.narrow ? 1 : panels_of(s->in);
  k.width = k.narrow ? s->in : PANEL;
  k.rows = (s->oh - 1) * k.row_step + s->kh;
  k.columns = (s->ow - 1) * k.column_step + s->kw;
  return k;
}
/* Floats that one packed image takes. */
static int64_t image_size(const packing *k) {
  return k->blocks * k->rows * k->columns * k->width + (k->keeps_dy ? 0 : panels_of(k->s->out) * k->s->oh * k->s->ow * PANEL);
}
/* Makes a buffer the place of packed images, at most so many together. */
static void pack_into(packing *k, float *buffer, int64_t images) {
  k->images = images;
  k->x = buffer;
  k->packed_dy = buffer + images * k->blocks * k->rows * k->columns * k->width;
  k->dy_panel = k->keeps_dy ? PANEL : images * k->s->oh * k->s->ow * PANEL;
  k->dy_pixel = k->keeps_dy ? k->s->out : PANEL;
}
/* From here on the packed images are those from the batch's image `first` on. */
static void begin_images(packing *k, const float *dy, int64_t first) {
  k->dy = k->keeps_dy ? dy + first * k->s->oh * k->s->ow * k->s->out : k->packed_dy;
}

/* `width` channels of one pixel as panels `step` floats apart, missing channels zero. */
static void pack_pixel(float *to, int64_t step, const float *from, int64_t channels, int64_t width) {
  for (int64_t c = 0; c < channels; c += width, to += step) {
    if (width == PANEL && c + PANEL <= channels) memcpy(to, from + c, PANEL * sizeof *to);
    else for (int64_t l = 0; l < width; l++) to[l] = c + l < channels ? from[c + l] : 0;
  }
}

static void pack_x_row(const packing *k, const float *x, int64_t first, int64_t image, int64_t r) {
  const conv_shape *s = k->s;
  int64_t row = r / k->row_step * s->stride + r % k->row_step - s->padding, step = k->images * k->rows * k->columns * k->width;
  float *to = k->x + (image * k->rows + r) * k->columns * k->width;
  const float *from = x + ((first + image) * s->h + row) * s->w * s->in;
  if (k->narrow && k->column_step == s->stride && row >= 0 && row < s->h) { /* pixels follow each other in both */
    int64_t before = min(s->padding, k->columns), inside = min(s->w, k->columns - before), after = k->columns - before - inside;
    memset(to, 0, (size_t)(before * s->in) * sizeof *to);
    memcpy(to + before * s->in, from, (size_t)(inside * s->in) * sizeof *to);
    memset(to + (before + inside) * s->in, 0, (size_t)(after * s->in) * sizeof *to);
    return;
  }
  for (int64_t q = 0; q < k->columns; q++, to += k->width) {
    int64_t column = q / k->column_step * s->stride + q % k->column_step - s->padding;
    int inside = row >= 0 && row < s->h && column >= 0 && column < s->w;
    if (inside) pack_pixel(to, step, from + column * s->in, s->in, k->width);
    else for (int64_t b = 0; b < k->blocks; b++) memset(to + b * step, 0, (size_t)k->width * sizeof *to);
  }
}

static void pack_dy_row(const packing *k, const float *dy, int64_t first, int64_t image, int64_t r) {
  const conv_shape *s = k->s;
  if (k->keeps_dy) return;
  for (int64_t q = r * s->ow; q < (r + 1) * s->ow; q++)
    pack_pixel(k->packed_dy + (image * s->oh * s->ow + q) * PANEL, k->dy_panel, dy + ((first + image) * s->oh * s->ow + q) * s->out, s->out, PANEL);
}

/* Which weights: those of a panel of dy, a block of x and a kernel row, `runs` times `rows` for each output. */
typedef struct { int64_t panel, block, kh, runs, rows; } weight_piece;

static int64_t pieces_of(const packing *k) { return panels_of(k->s->out) * k->blocks * k->s->kh; }
static int64_t piece_size(const packing *k) { return k->s->kw * max(PANEL, k->width) * PANEL; }
static weight_piece piece_of(const packing *k, int64_t i) {
  const conv_shape *s = k->s;
  weight_piece w = {.kh = i % s->kh, .block = i / s->kh % k->blocks, .panel = i / s->kh / k->blocks};
  w.runs = k->narrow ? 1 : s->kw;
  w.rows = k->narrow ? s->kw * s->in : min(PANEL, s->in - w.block * PANEL);
  return w;
}

/* Output pixels that meet the weights together: a band of rows of one image, or several small images. */
typedef struct { int64_t height, group; } band_size;

static band_size band_of(const packing *k) {
  int64_t height = min(k->s->oh, ceil_div(BAND_PIXELS, k->s->ow));
  return (band_size){height, height < k->s->oh ? 1 : max(1, BAND_PIXELS / (k->s->oh * k->s->ow))};
}

/* Of the outputs first .. first + *count, those whose input at `tap` is no padding: returns the first and changes *count. */
static int64_t inside(int64_t first, int64_t *count, int64_t tap, int64_t stride, int64_t padding, int64_t size) {
  int64_t begin = max(first, padding > tap ? ceil_div(padding - tap, stride) : 0);
  int64_t end = min(first + *count, size + padding > tap ? (size - 1 + padding - tap) / stride + 1 : 0);
  *count = max(0, end - begin);
  return begin;
}

/* g[run][row][16] = or, unless first, += the sums over output rows r .. r + height of packed images n .. n + count. */
static void weight_band(const packing *k, float *g, const weight_piece *w, int64_t n, int64_t count, int64_t r, int64_t height, int first) {
  const conv_shape *s = k->s;
  int64_t a_row = k->columns * k->width, a_image = k->rows * a_row, b_row = s->ow * k->dy_pixel, b_image = s->oh * b_row;
  int64_t a_step[3] = {a_image, k->row_step * a_row, k->column_step * k->width};
  r = inside(r, &height, w->kh, s->stride, s->padding, s->h);
  for (int64_t u = 0; u < w->runs; u++) {
    int64_t columns = s->ow, q = k->narrow ? 0 : inside(0, &columns, u, s->stride, s->padding, s->w);
    pixel_loops loops = {{count, height, columns}, {a_step[0], a_step[1], a_step[2]}, {b_image, b_row, k->dy_pixel}};
    if (columns < count) loops = (pixel_loops){{height, columns, count}, {a_step[1], a_step[2], a_step[0]}, {b_row, k->dy_pixel, b_image}};
    const float *a = k->x + (w->block * k->images + n) * a_image + (r * k->row_step + w->kh) * a_row + (q * k->column_step + u) * k->width;
    const float *b = k->dy + w->panel * k->dy_panel + n * b_image + r * b_row + q * k->dy_pixel;
    panel_outer(g + u * w->rows * PANEL, a, b, &loops, w->rows, first);
  }
}

/* Brings one piece of sums to its weights, or, when add, adds it to them. */
static void store_piece(const packing *k, float *dw, const float *g, const weight_piece *w, int add) {
  const conv_shape *s = k->s;
  int64_t size = s->kh * s->kw * s->in;
  for (int64_t u = 0; u < w->runs; u++)
    panel_store(dw + w->panel * PANEL * size + (w->kh * s->kw + u) * s->in + w->block * PANEL, size, g + u * w->rows * PANEL, w->rows,
                min(PANEL, s->out - w->panel * PANEL), add);
}

void ty_add_parts(float *dw, const float *sums, int64_t parts, int64_t size) {
#pragma omp for
  for (int64_t at = 0; at < size; at += ADD_BLOCK) {
    if (ty_is_unwanted()) continue;
    int64_t end = min(size, at + ADD_BLOCK);
    for (int64_t i = at; i < end; i++) dw[i] = sums[i];
    for (int64_t part = 1; part < parts; part++)
      for (int64_t i = at; i < end; i++) dw[i] += sums[part * size + i];
  }
}

/* Many pixels, few weights: every part of the images is one core's from packing to weights. */
static int weights_by_parts(packing k, float *dw, const float *dy, const float *x, int64_t parts) {
  const conv_shape *s = k.s;
  int64_t size = s->out * s->kh * s->kw * s->in, pieces = pieces_of(&k), piece = piece_size(&k);
  int64_t images = min(ceil_div(s->n, parts), max(1, PART_BYTES / (image_size(&k) * (int64_t)sizeof(float))));
  int64_t own = images * image_size(&k) + pieces * piece;
  int64_t bytes = (parts * size + omp_get_max_threads() * own) * (int64_t)sizeof(float);
  float *sums = ty_alloc(bytes);
  if (!sums) return ty_no_scratch("conv2d_back_weight", bytes);
#pragma omp parallel firstprivate(k) if (conv_work(s) > PARALLEL_WORK)
  {
    float *buffer = sums + parts * size + omp_get_thread_num() * own, *g = buffer + images * image_size(&k);
    pack_into(&k, buffer, images);
    band_size band = band_of(&k);
#pragma omp for schedule(dynamic)
    for (int64_t part = 0; part < parts; part++) {
      int64_t begin = part * s->n / parts, end = (part + 1) * s->n / parts;
      for (int64_t first = begin, count; first < end && !ty_is_unwanted(); first += count) {
        count = min(images, end - first);
        for (int64_t r = 0; r < count * k.rows; r++) pack_x_row(&k, x, first, r / k.rows, r % k.rows);
        for (int64_t r = 0; r < count * s->oh; r++) pack_dy_row(&k, dy, first, r / s->oh, r % s->oh);
        begin_images(&k, dy, first);
        for (int64_t n = 0; n < count; n += band.group)
          for (int64_t r = 0; r < s->oh; r += band.height)
            for (int64_t i = 0; i < pieces; i++) {
              weight_piece w = piece_of(&k, i);
              weight_band(&k, g + i * piece, &w, n, min(band.group, count - n), r, min(band.height, s->oh - r), first == begin && n + r == 0);
            }
      }
      for (int64_t i = 0; i < pieces; i++) {
        weight_piece w = piece_of(&k, i);
        store_piece(&k, sums + part * size, g + i * piece, &w, 0);
      }
    }
    ty_add_parts(dw, sums, parts, size);
  }
  ty_free(sums, bytes);
  return 0;
}

/* Few pixels, many weights: the cores share the packed images and divide the weights. */
static int weights_by_pieces(packing k, float *dw, const float *dy, const float *x) {
  const conv_shape *s = k.s;
  int64_t pieces = pieces_of(&k), piece = piece_size(&k);
  int64_t images = min(s->n, max(1, PACKED_BYTES / (image_size(&k) * (int64_t)sizeof(float))));
  images = ceil_div(s->n, ceil_div(s->n, images));
  int64_t bytes = (images * image_size(&k) + omp_get_max_threads() * piece) * (int64_t)sizeof(float);
  float *buffer = ty_alloc(bytes);
  if (!buffer) return ty_no_scratch("conv2d_back_weight", bytes);
  float *scratch = buffer + images * image_size(&k);
  int ended = 0;
  pack_into(&k, buffer, images);
  band_size band = band_of(&k);
#pragma omp parallel firstprivate(k) if (conv_work(s) > PARALLEL_WORK)
  {
    float *g = scratch + omp_get_thread_num() * piece;
    for (int64_t first = 0; first < s->n; first += images) {
      int64_t count = min(images, s->n - first);
#pragma omp for nowait
      for (int64_t r = 0; r < count * k.rows; r++) {
        if (ty_is_unwanted()) continue;
        pack_x_row(&k, x, first, r / k.rows, r % k.rows);
      }
#pragma omp for
      for (int64_t r = 0; r < count * s->oh; r++) {
        if (ty_end_phase(&ended)) continue;
        pack_dy_row(&k, dy, first, r / s->oh, r % s->oh);
      }
      if (ended) break;
      begin_images(&k, dy, first);
#pragma omp for schedule(dynamic)
      for (int64_t i = 0; i < pieces; i++) {
        if (ty_is_unwanted()) continue;
        weight_piece w = piece_of(&k, i);
        for (int64_t n = 0; n < count; n += band.group)
          for (int64_t r = 0; r < s->oh; r += band.height)
            weight_band(&k, g, &w, n, min(band.group, count - n), r, min(band.height, s->oh - r), n + r == 0);
        store_piece(&k, dw, g, &w, first > 0);
      }
    }
  }
  ty_free(buffer, bytes);
  return 0;
}

int ty_direct_back_weight(const conv_shape *s, float *dw, const float *dy, const float *x) {
  int64_t size = s->out * s->kh * s->kw * s->in;
  if (size == 0) return 0;
  if (s->n == 0) {
    memset(dw, 0, (size_t)size * sizeof *dw);
    return 0;
  }
  packing k = packing_of(s);
  int64_t parts = parts_of(s->n * image_size(&k), size, s->n);
  return parts ? weights_by_parts(k, dw, dy, x, parts) : weights_by_pieces(k, dw, dy, x);
}

#endif
