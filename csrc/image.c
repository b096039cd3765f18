/* Images in and out: decoding (stb_image), Pillow's antialiased bilinear resize, normalisation, JPEG and PNG files.
 * Deliberately ignores EXIF orientation and colour profiles, keeps no aspect ratio, and reads no formats but JPEG and PNG. */
#define _GNU_SOURCE
#include "internal.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* GCC tells of stb's unused static functions at the end of the file, after any pop. */
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic push
#pragma GCC push_options
#pragma GCC optimize("wrapv") /* stb lets signed sums and shifts overflow, on purpose and in damaged files */
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#include <stb/stb_image.h>
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO
#include <stb/stb_image_write.h>
#pragma GCC pop_options
#pragma GCC diagnostic pop

enum { MAX_PIXELS = 100000000 };

/* ---- reading ---- */

/* The whole file in a malloc'd block. */
static int read_file(const char *op, const char *path, uint8_t **data, size_t *bytes) {
  struct stat info;
  if (stat(path, &info)) return ty_fail("%s: %s: %s", op, path, strerror(errno));
  const char *kind = S_ISDIR(info.st_mode) ? "a directory" : "no regular file";
  if (!S_ISREG(info.st_mode)) return ty_fail("%s: %s: expected a JPEG or PNG image, got %s", op, path, kind);
  if (info.st_size == 0) return ty_fail("%s: %s: expected a JPEG or PNG image, got an empty file", op, path);
  if (info.st_size > INT32_MAX) return ty_fail("%s: %s: expected an image, got a file of %lld bytes", op, path, (long long)info.st_size);
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return ty_fail("%s: %s: %s", op, path, strerror(errno));
  size_t size = (size_t)info.st_size, have = 0;
  uint8_t *block = malloc(size);
  int reason = block ? 0 : ENOMEM;
  while (!reason && have < size) {
    ssize_t n = read(file, block + have, size - have);
    if (n > 0) have += (size_t)n;
    else if (n == 0) break;
    else if (errno != EINTR) reason = errno;
  }
  close(file);
  if (reason) {
    free(block);
    return ty_fail("%s: %s: %s", op, path, strerror(reason));
  }
  *data = block;
  *bytes = have;
  return 0;
}

static int is_jpeg(const uint8_t *p, size_t n) { return n >= 3 && p[0] == 0xFF && p[1] == 0xD8 && p[2] == 0xFF; }
static int is_png(const uint8_t *p, size_t n) { return n >= 8 && !memcmp(p, "\x89PNG\r\n\x1a\n", 8); }

/* Whether the Huffman tables in a DHT segment have at most 256 codes each: stb 2.27 writes past its own table otherwise. */
static int huffman_tables_fit(const uint8_t *p, size_t n) {
  while (n >= 17) {
    size_t codes = 0;
    for (int i = 1; i <= 16; i++) codes += p[i];
    if (codes > 256) return 0;
    if (n < 17 + codes) return 1; /* stb refuses such a segment */
    p += 17 + codes;
    n -= 17 + codes;
  }
  return n == 0;
}

/* What is wrong with a JPEG's marker segments, or NULL. stb fills the missing rest of some truncated files with grey. */
static const char *jpeg_fault(const uint8_t *p, size_t n) {
  size_t at = 2;
  while (at + 1 < n) {
    const uint8_t *found = memchr(p + at, 0xFF, n - at - 1);
    if (!found) break;
    at = (size_t)(found - p) + 1;
    uint8_t marker = p[at];
    if (marker == 0xD9) return NULL;
    if (marker == 0xFF) continue;
    at++;
    int bare = marker <= 0x01 || (marker >= 0xD0 && marker <= 0xD8); /* stuffed zero, TEM, restart, SOI: no length follows */
    if (bare) continue;
    if (at + 1 >= n) break;
    size_t length = (size_t)(p[at] << 8 | p[at + 1]);
    if (length < 2) return "a damaged JPEG (a segment shorter than its own length field)";
    if (marker == 0xC4 && at + length <= n && !huffman_tables_fit(p + at + 2, length - 2)) return "a damaged JPEG (bad Huffman table)";
    at += length;
  }
  return "a truncated JPEG (no end-of-image marker)";
}

static int check_kind(const char *op, const char *path, const uint8_t *p, size_t n) {
  if (is_png(p, n)) return 0;
  if (is_jpeg(p, n)) {
    const char *fault = jpeg_fault(p, n);
    return fault ? ty_fail("%s: %s: expected a JPEG or PNG image, got %s", op, path, fault) : 0;
  }
  char head[16] = "";
  for (size_t i = 0; i < 4 && i < n; i++) snprintf(head + 3 * i, 4, " %02x", p[i]);
  return ty_fail("%s: %s: expected a JPEG or PNG image, got a file that begins with the bytes%s", op, path, head);
}

/* For data of a known kind that stb refuses. */
static int damaged(const char *op, const char *path, const uint8_t *p, size_t n) {
  const char *kind = is_jpeg(p, n) ? "JPEG" : "PNG";
  int w, h, channels;
  /* stbi_info tries every format and leaves the last one's reason; loading leaves the right one. */
  stbi_image_free(stbi_load_from_memory(p, (int)n, &w, &h, &channels, 3));
  const char *reason = stbi_failure_reason();
  /* The PNG test runs first; its reason stays when the JPEG decoder gives none. */
  if (!reason || (is_jpeg(p, n) && !strcmp(reason, "bad png sig"))) reason = "bad segment";
  return ty_fail("%s: %s: expected a JPEG or PNG image, got a damaged or unsupported %s (%s)", op, path, kind, reason);
}

/* Decodes to RGB, (h,w,3), in a block for stbi_image_free. Gray is repeated, alpha dropped. */
static int decode(const char *op, const char *path, uint8_t **rgb, int *h, int *w) {
  uint8_t *data;
  size_t bytes;
  int channels;
  TY_TRY(read_file(op, path, &data, &bytes));
  int status = check_kind(op, path, data, bytes);
  if (!status && !stbi_info_from_memory(data, (int)bytes, w, h, &channels)) status = damaged(op, path, data, bytes);
  if (!status && (int64_t)*w * *h > MAX_PIXELS)
    status = ty_fail("%s: %s: expected at most %d pixels, got %d x %d", op, path, MAX_PIXELS, *w, *h);
  if (!status && !(*rgb = stbi_load_from_memory(data, (int)bytes, w, h, &channels, 3))) status = damaged(op, path, data, bytes);
  free(data);
  return status;
}

int ty_image_size(int32_t *height, int32_t *width, const char *path) {
  uint8_t *data;
  size_t bytes;
  int w, h, channels;
  TY_TRY(read_file("image_size", path, &data, &bytes));
  int status = check_kind("image_size", path, data, bytes);
  if (!status && !stbi_info_from_memory(data, (int)bytes, &w, &h, &channels)) status = damaged("image_size", path, data, bytes);
  free(data);
  if (status) return status;
  *height = h;
  *width = w;
  return 0;
}

/* ---- Pillow's bilinear resize (src/libImaging/Resample.c, 8 bits per channel) ----
 * Weights are a triangle whose support widens by the scale when shrinking, rounded to 22-bit fixed point. The sums are exact
 * integers, so any order of summing gives Pillow's bytes. */

enum { WEIGHT_BITS = 22, HALF = 1 << (WEIGHT_BITS - 1) };
/* Output i is the sum over j < count[i] of w[i*taps+j] * x[first[i]+j]. */
typedef struct weights { int taps, *first, *count; int32_t *w; } weights;

static void free_weights(weights *k) {
  free(k->first);
  free(k->w);
}

static int make_weights(weights *k, int in, int out) {
  double scale = (double)in / out, stretch = scale < 1 ? 1 : scale, support = stretch;
  k->taps = (int)ceil(support) * 2 + 1;
  k->first = malloc(2 * sizeof(int) * (size_t)out);
  k->count = k->first + out;
  k->w = calloc((size_t)out * (size_t)k->taps, sizeof *k->w);
  double *row = malloc((size_t)k->taps * sizeof *row);
  if (!k->first || !k->w || !row) {
    free(row);
    free_weights(k);
    return ty_fail("resize: out of memory");
  }
  for (int i = 0; i < out; i++) {
    double centre = (i + 0.5) * scale, total = 0;
    int first = (int)(centre - support + 0.5), last = (int)(centre + support + 0.5);
    if (first < 0) first = 0;
    if (last > in) last = in;
    for (int j = 0; j < last - first; j++) {
      double distance = fabs((j + first - centre + 0.5) / stretch);
      row[j] = distance < 1 ? 1 - distance : 0;
      total += row[j];
    }
    for (int j = 0; j < last - first; j++) k->w[(size_t)i * k->taps + j] = (int32_t)(0.5 + row[j] / total * (1 << WEIGHT_BITS));
    k->first[i] = first;
    k->count[i] = last - first;
  }
  free(row);
  return 0;
}

typedef int32_t int4 __attribute__((vector_size(16)));

/* y (h,wo,3) from x (h,wi,3); row (wi) is scratch. A weighted sum needs no clamping: weights are not negative and add up to 1. */
static void resize_rows(uint8_t *y, const uint8_t *x, int h, int wi, int wo, const weights *k, int4 *row) {
  for (int r = 0; r < h; r++, x += (size_t)wi * 3) {
    for (int i = 0; i < wi; i++) row[i] = (int4){x[3 * i], x[3 * i + 1], x[3 * i + 2]};
    for (int i = 0; i < wo; i++, y += 3) {
      const int4 *p = row + k->first[i];
      const int32_t *w = k->w + (size_t)i * k->taps;
      int4 sum = {HALF, HALF, HALF};
      for (int j = 0; j < k->count[i]; j++) sum += p[j] * w[j];
      sum >>= WEIGHT_BITS;
      for (int c = 0; c < 3; c++) y[c] = (uint8_t)sum[c];
    }
  }
}

/* y (ho,n) from x (hi,n); sum (n) is scratch */
static void resize_columns(uint8_t *y, const uint8_t *x, int ho, int n, const weights *k, int32_t *sum) {
  for (int i = 0; i < ho; i++) {
    for (int c = 0; c < n; c++) sum[c] = HALF;
    for (int j = 0; j < k->count[i]; j++) {
      const uint8_t *p = x + (size_t)(k->first[i] + j) * n;
      int32_t w = k->w[(size_t)i * k->taps + j];
      for (int c = 0; c < n; c++) sum[c] += p[c] * w;
    }
    for (int c = 0; c < n; c++) y[(size_t)i * n + c] = (uint8_t)(sum[c] >> WEIGHT_BITS);
  }
}

static int resize_width(uint8_t *y, const uint8_t *x, int h, int wi, int wo) {
  weights k;
  int4 *row = malloc((size_t)wi * sizeof *row);
  int status = row ? make_weights(&k, wi, wo) : ty_fail("resize: out of memory");
  if (!status) {
    resize_rows(y, x, h, wi, wo, &k, row);
    free_weights(&k);
  }
  free(row);
  return status;
}

static int resize_height(uint8_t *y, const uint8_t *x, int hi, int ho, int w) {
  weights k;
  int32_t *sum = malloc((size_t)w * 3 * sizeof *sum);
  int status = sum ? make_weights(&k, hi, ho) : ty_fail("resize: out of memory");
  if (!status) {
    resize_columns(y, x, ho, w * 3, &k, sum);
    free_weights(&k);
  }
  free(sum);
  return status;
}

/* y (ho,wo,3) from x (hi,wi,3). Horizontal first, bytes in between; a pass whose axis keeps its size is skipped. */
static int resize(uint8_t *y, int ho, int wo, const uint8_t *x, int hi, int wi) {
  if (ho == hi && wo == wi) memcpy(y, x, (size_t)hi * wi * 3);
  if (ho == hi) return wo == wi ? 0 : resize_width(y, x, hi, wi, wo);
  if (wo == wi) return resize_height(y, x, hi, ho, wi);
  uint8_t *narrow = malloc((size_t)hi * wo * 3);
  int status = narrow ? resize_width(narrow, x, hi, wi, wo) || resize_height(y, narrow, hi, ho, wo) : ty_fail("resize: out of memory");
  free(narrow);
  return status;
}

static int check_rgb(const char *op, const char *arg, const ty_tensor *t, int ndim) {
  TY_TRY(ty_check_dense(op, arg, t, TY_U8, ndim));
  TY_TRY(ty_check_size(op, arg, t, ndim - 1, 3));
  int64_t h = t->shape[ndim - 3], w = t->shape[ndim - 2];
  if (h < 1 || w < 1 || h > MAX_PIXELS || w > MAX_PIXELS || h * w > MAX_PIXELS)
    return ty_fail("%s: %s must have 1 to %d pixels, got shape %s", op, arg, MAX_PIXELS, ty_shape_text(t));
  return 0;
}

int ty_resize(ty_tensor *y, const ty_tensor *x) {
  TY_TRY(check_rgb("resize", "y", y, 3));
  TY_TRY(check_rgb("resize", "x", x, 3));
  return resize(y->data, (int)y->shape[0], (int)y->shape[1], x->data, (int)x->shape[0], (int)x->shape[1]);
}

int ty_read_images(ty_tensor *y, const char *const *paths) {
  TY_TRY(check_rgb("read_images", "y", y, 4));
  int64_t n = y->shape[0], first_bad = n;
  int ho = (int)y->shape[1], wo = (int)y->shape[2];
  char reason[1024] = "";
#pragma omp parallel for schedule(dynamic) if (n > 1)
  for (int64_t i = 0; i < n; i++) {
    int64_t bad;
#pragma omp atomic read
    bad = first_bad;
    if (i > bad) continue;
    uint8_t *rgb;
    int h, w, status = decode("read_images", paths[i], &rgb, &h, &w);
    if (!status) {
      status = resize((uint8_t *)y->data + i * ho * wo * 3, ho, wo, rgb, h, w);
      stbi_image_free(rgb);
    }
    if (status) {
#pragma omp critical(read_images)
      if (i < first_bad) {
        snprintf(reason, sizeof reason, "%s", ty_error());
#pragma omp atomic write
        first_bad = i;
      }
    }
  }
  return first_bad < n ? ty_fail("%s", reason) : 0;
}

int ty_normalize_images(ty_tensor *y, const ty_tensor *x, const ty_tensor *index, const double *mean, const double *std) {
  const char *op = "normalize_images";
  TY_TRY(ty_check_dense(op, "x", x, TY_U8, 4));
  TY_TRY(ty_check_size(op, "x", x, 3, 3));
  TY_TRY(ty_check_image(op, "y", y));
  if (index) TY_TRY(ty_check_dense(op, "index", index, TY_I64, 1));
  int64_t n = x->shape[0], m = index ? index->shape[0] : n, pixels = x->shape[1] * x->shape[2];
  const int64_t expected[4] = {m, 3, x->shape[1], x->shape[2]};
  for (int d = 0; d < 4; d++) TY_TRY(ty_check_size(op, "y", y, d, expected[d]));
  const int64_t *at = index ? index->data : NULL;
  for (int64_t i = 0; at && i < m; i++)
    if (at[i] < 0 || at[i] >= n)
      return ty_fail("%s: index %lld at position %lld is outside 0..%lld", op, (long long)at[i], (long long)i, (long long)n - 1);
  real table[3][256];
  for (int c = 0; c < 3; c++)
    for (int v = 0; v < 256; v++) table[c][v] = ((real)v / 255 - (real)mean[c]) / (real)std[c];
#pragma omp parallel for if (m * pixels * 3 >= TY_PARALLEL)
  for (int64_t i = 0; i < m; i++) {
    const uint8_t *from = (const uint8_t *)x->data + (at ? at[i] : i) * pixels * 3;
    real *to = (real *)y->data + i * pixels * 3;
    for (int64_t p = 0; p < pixels; p++, from += 3, to += 3) {
      to[0] = table[0][from[0]];
      to[1] = table[1][from[1]];
      to[2] = table[2][from[2]];
    }
  }
  return 0;
}

/* ---- writing ---- */

typedef struct buffer { uint8_t *data; size_t size, room; int failed; } buffer;

static void append(void *context, void *data, int n) {
  buffer *b = context;
  if (b->failed) return;
  if (b->size + (size_t)n > b->room) {
    size_t room = 2 * b->room + (size_t)n;
    uint8_t *grown = realloc(b->data, room);
    if (!grown) {
      b->failed = 1;
      return;
    }
    b->data = grown;
    b->room = room;
  }
  memcpy(b->data + b->size, data, (size_t)n);
  b->size += (size_t)n;
}

/* Writes to PATH.tmp<pid>, syncs and renames, so that PATH is either complete or as it was. */
static int save(const char *op, const char *path, const buffer *b) {
  struct stat info;
  /* A rename would replace a device such as /dev/null by a file. */
  if (!stat(path, &info) && !S_ISREG(info.st_mode)) return ty_fail("%s: %s is not a regular file", op, path);
  size_t length = strlen(path) + 32;
  char *temporary = malloc(length);
  if (!temporary) return ty_fail("%s: %s: %s", op, path, strerror(ENOMEM));
  snprintf(temporary, length, "%s.tmp%ld", path, (long)getpid());
  int reason = 0, file = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file < 0) {
    reason = errno;
  } else {
    for (size_t done = 0; !reason && done < b->size;) {
      ssize_t n = write(file, b->data + done, b->size - done);
      if (n > 0) done += (size_t)n;
      else if (n < 0 && errno != EINTR) reason = errno;
    }
    if (close(file) && !reason) reason = errno;
    if (!reason && rename(temporary, path)) reason = errno;
    if (reason) unlink(temporary);
  }
  free(temporary);
  return reason ? ty_fail("%s: %s: %s", op, path, strerror(reason)) : 0;
}

static int finish(const char *op, const char *path, buffer *b, int encoded) {
  int status = encoded && !b->failed ? save(op, path, b) : ty_fail("%s: %s: out of memory while encoding", op, path);
  free(b->data);
  return status;
}

int ty_write_jpeg(const char *path, const ty_tensor *x, int quality) {
  TY_TRY(check_rgb("write_jpeg", "x", x, 3));
  if (x->shape[0] > 65535 || x->shape[1] > 65535)
    return ty_fail("write_jpeg: x must be at most 65535 pixels high and wide, got shape %s", ty_shape_text(x));
  if (quality < 1 || quality > 100) return ty_fail("write_jpeg: quality must be 1 to 100, got %d", quality);
  buffer b = {0};
  int encoded = stbi_write_jpg_to_func(append, &b, (int)x->shape[1], (int)x->shape[0], 3, x->data, quality);
  return finish("write_jpeg", path, &b, encoded);
}

int ty_write_png(const char *path, const ty_tensor *x) {
  TY_TRY(ty_check_dense("write_png", "x", x, TY_U8, 3));
  int64_t h = x->shape[0], w = x->shape[1], c = x->shape[2];
  if (c != 1 && c != 3 && c != 4) return ty_fail("write_png: x must have 1, 3 or 4 channels in dim 2, got shape %s", ty_shape_text(x));
  if (h < 1 || w < 1 || h > MAX_PIXELS || w > MAX_PIXELS || h * w > MAX_PIXELS)
    return ty_fail("write_png: x must have 1 to %d pixels, got shape %s", MAX_PIXELS, ty_shape_text(x));
  buffer b = {0};
  int encoded = stbi_write_png_to_func(append, &b, (int)w, (int)h, (int)c, x->data, (int)(w * c));
  return finish("write_png", path, &b, encoded);
}
