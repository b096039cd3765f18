/* Pillow's antialiased bilinear resize (src/libImaging/Resample.c, 8 bits per channel) to the last bit, as it is up to version 12. Keeps
 * no aspect ratio and has no other filters.
 * Weights are a triangle whose support widens by the scale when shrinking, rounded to 22-bit fixed point. The sums are exact integers, so any
 * order of summing gives Pillow's bytes. Horizontal first, bytes in between; a pass whose axis keeps its size is skipped. */
#include "image.h"
#include <stdlib.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

enum { WEIGHT_BITS = 22, HALF = 1 << (WEIGHT_BITS - 1), LOW_BITS = 11, GROUP = 4, LANES = 16 };

/* ---- weights ----
 * Output i is the sum over j < count[i] of weight[i*taps+j] * x[first[i]+j]; taps is a multiple of GROUP, the rest is 0. */

static void free_filter(ty_filter *f) {
  free(f->first);
  free(f->weight);
  free(f->halves);
  *f = (ty_filter){0};
}

/* The weights again as 16-bit halves for multiply-add instructions: for each output and group of 4 taps the high halves in the order
 * 01010101 23232323, then the low ones. */
static void split(ty_filter *f) {
  int groups = f->taps / GROUP;
  for (int64_t i = 0; i < (int64_t)f->out * groups; i++) {
    const int32_t *weight = f->weight + i * GROUP;
    int16_t *halves = f->halves + i * 2 * LANES;
    for (int lane = 0; lane < LANES; lane++) {
      int32_t w = weight[lane / 8 * 2 + lane % 2];
      halves[lane] = (int16_t)(w >> LOW_BITS);
      halves[LANES + lane] = (int16_t)(w & ((1 << LOW_BITS) - 1));
    }
  }
}

/* Pillow's arithmetic was compiled without fused multiply-add. */
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
static void place(ty_filter *f, double scale, double support, int i) {
  double centre = (i + 0.5) * scale;
  int first = (int)(centre - support + 0.5), last = (int)(centre + support + 0.5);
  f->first[i] = first < 0 ? 0 : first;
  f->count[i] = (last > f->in ? f->in : last) - f->first[i];
}
/* row: scratch */
static void weigh_triangle(ty_filter *f, double scale, double support, int i, double *row) {
  double centre = (i + 0.5) * scale, shrink = 1 / support, total = 0;
  for (int j = 0; j < f->count[i]; j++) {
    double distance = fabs((j + f->first[i] - centre + 0.5) * shrink);
    row[j] = distance < 1 ? 1 - distance : 0;
    total += row[j];
  }
  for (int j = 0; j < f->count[i]; j++) f->weight[(size_t)i * f->taps + j] = (int32_t)(0.5 + row[j] / total * (1 << WEIGHT_BITS));
}
#pragma GCC pop_options

static int make_filter(ty_filter *f, int in, int out) {
  if (f->in == in && f->out == out) return 0;
  free_filter(f);
  double scale = (double)in / out, support = scale < 1 ? 1 : scale;
  int most = 0;
  f->first = malloc(2 * sizeof(int) * (size_t)out);
  if (!f->first) return ty_fail("resize: out of memory for %d pixels", out);
  f->in = in;
  f->out = out;
  f->count = f->first + out;
  for (int i = 0; i < out; i++) {
    place(f, scale, support, i);
    if (f->count[i] > most) most = f->count[i];
  }
  f->taps = (most + GROUP - 1) / GROUP * GROUP;
  size_t weights = (size_t)out * (size_t)f->taps;
  f->weight = calloc(weights, sizeof *f->weight);
  f->halves = aligned_alloc(64, weights / GROUP * 2 * LANES * sizeof *f->halves);
  double *row = malloc((size_t)f->taps * sizeof *row);
  int status = f->weight && f->halves && row ? 0 : ty_fail("resize: out of memory for %d weights for each of %d pixels", most, out);
  if (!status) {
    for (int i = 0; i < out; i++) weigh_triangle(f, scale, support, i, row);
    split(f);
  } else {
    free_filter(f);
  }
  free(row);
  return status;
}

/* ---- passes ----
 * A weighted sum needs no clamping: weights are not negative and add up to 1. */

static size_t behind(const ty_filter *f) { return 3 * (size_t)f->taps + 16; }

#ifdef __AVX2__
/* Pixels p[0..4*groups-1] by their weights: R G B 0, the lower half from pixels 0 and 1 of each group of 4, the upper from 2 and 3. */
static inline __m256i weigh(const uint8_t *p, const int16_t *w, int groups) {
  const __m256i spread = _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1, /* R0 R1 G0 G1 B0 B1 */
                                          6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
  __m256i high = _mm256_setzero_si256(), low = high;
  for (int g = 0; g < groups; g++, p += 3 * GROUP, w += 2 * LANES) {
    __m256i x = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p)), spread);
    high = _mm256_add_epi32(high, _mm256_madd_epi16(x, _mm256_load_si256((const __m256i *)w)));
    low = _mm256_add_epi32(low, _mm256_madd_epi16(x, _mm256_load_si256((const __m256i *)(w + LANES))));
  }
  return _mm256_add_epi32(_mm256_slli_epi32(high, LOW_BITS), low);
}

/* Two pixels' sums as the 6 low bytes. */
static inline uint64_t two_pixels(__m256i a, __m256i b) {
  const __m256i half = _mm256_set1_epi32(HALF), bytes = _mm256_broadcastsi128_si256(_mm_setr_epi32(0x00080400, -1, -1, -1));
  __m256i sum = _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31));
  sum = _mm256_shuffle_epi8(_mm256_srai_epi32(_mm256_add_epi32(sum, half), WEIGHT_BITS), bytes);
  uint64_t first = (uint64_t)_mm_cvtsi128_si64(_mm256_castsi256_si128(sum)), second = (uint64_t)_mm256_extract_epi64(sum, 2);
  return (first & 0xFFFFFF) | (second & 0xFFFFFF) << 24;
}

/* y (wo,3) from x (wi,3), behind which behind(f) bytes are read; their weights are 0. */
static inline void resize_row(uint8_t *y, const uint8_t *x, const ty_filter *f, int groups) {
  const int16_t *w = f->halves;
  const int step = 2 * LANES * groups, out = f->out, *first = f->first;
  int i = 0;
  for (; i + 2 < out; i += 2, w += 2 * step) {
    uint64_t pixels = two_pixels(weigh(x + 3 * first[i], w, groups), weigh(x + 3 * first[i + 1], w + step, groups));
    memcpy(y + 3 * i, &pixels, 8); /* the last two bytes are written again */
  }
  for (; i < out; i++, w += step) {
    __m256i one = weigh(x + 3 * first[i], w, groups);
    uint64_t pixel = two_pixels(one, one);
    memcpy(y + 3 * i, &pixel, 3);
  }
}

/* y (h,wo,3) from x (h,wi,3). row: scratch of behind(f) more bytes than a row, for the last rows, behind which nothing may be read. */
static void resize_rows(uint8_t *y, const uint8_t *x, int h, const ty_filter *f, uint8_t *row) {
  size_t wi = 3 * (size_t)f->in, wo = 3 * (size_t)f->out;
  int groups = f->taps / GROUP;
  for (int r = 0; r < h; r++, x += wi, y += wo) {
    const uint8_t *from = x;
    if ((size_t)(h - 1 - r) * wi < behind(f)) from = memcpy(row, x, wi);
    if (groups == 1) resize_row(y, from, f, 1);
    else resize_row(y, from, f, groups);
  }
}

/* 16 bytes of one output row: the sum of count rows of n bytes. */
static inline void resize_strip(uint8_t *y, const uint8_t *x, size_t n, int count, const int16_t *w) {
  const __m256i half = _mm256_set1_epi32(HALF);
  __m256i high[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()}, low[2] = {high[0], high[0]};
  for (int j = 0; j < count; j += 2) {
    const int16_t *pair = w + j / GROUP * 2 * LANES + j % GROUP * 4;
    int32_t wh, wl;
    memcpy(&wh, pair, 4);
    memcpy(&wl, pair + LANES, 4);
    size_t next = j + 1 < count ? (size_t)j + 1 : (size_t)j; /* its weight is 0 where there is none */
    __m256i a = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(x + (size_t)j * n)));
    __m256i b = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(x + next * n)));
    __m256i ab[2] = {_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)};
    for (int k = 0; k < 2; k++) {
      high[k] = _mm256_add_epi32(high[k], _mm256_madd_epi16(ab[k], _mm256_set1_epi32(wh)));
      low[k] = _mm256_add_epi32(low[k], _mm256_madd_epi16(ab[k], _mm256_set1_epi32(wl)));
    }
  }
  for (int k = 0; k < 2; k++) {
    low[k] = _mm256_add_epi32(_mm256_add_epi32(_mm256_slli_epi32(high[k], LOW_BITS), low[k]), half);
    low[k] = _mm256_srai_epi32(low[k], WEIGHT_BITS);
  }
  __m256i words = _mm256_packs_epi32(low[0], low[1]), bytes = _mm256_permute4x64_epi64(_mm256_packus_epi16(words, words), 0x08);
  _mm_storeu_si128((__m128i *)y, _mm256_castsi256_si128(bytes));
}
#else
static void resize_rows(uint8_t *y, const uint8_t *x, int h, const ty_filter *f, uint8_t *row) {
  (void)row;
  for (int r = 0; r < h; r++, x += 3 * (size_t)f->in) {
    for (int i = 0; i < f->out; i++, y += 3) {
      const uint8_t *p = x + 3 * (size_t)f->first[i];
      const int32_t *w = f->weight + (size_t)i * f->taps;
      int32_t red = HALF, green = HALF, blue = HALF;
      for (int j = 0; j < f->count[i]; j++, p += 3) {
        red += p[0] * w[j];
        green += p[1] * w[j];
        blue += p[2] * w[j];
      }
      y[0] = (uint8_t)(red >> WEIGHT_BITS);
      y[1] = (uint8_t)(green >> WEIGHT_BITS);
      y[2] = (uint8_t)(blue >> WEIGHT_BITS);
    }
  }
}
#endif

/* y (ho,n) from x (hi,n) */
static void resize_columns(uint8_t *y, const uint8_t *x, size_t n, const ty_filter *f) {
  for (int i = 0; i < f->out; i++, y += n) {
    const uint8_t *rows = x + (size_t)f->first[i] * n;
    size_t c = 0;
#ifdef __AVX2__
    for (; c + LANES <= n; c += LANES) resize_strip(y + c, rows + c, n, f->count[i], f->halves + (size_t)i * (f->taps / GROUP) * 2 * LANES);
#endif
    const int32_t *w = f->weight + (size_t)i * f->taps;
    for (; c < n; c++) {
      int32_t sum = HALF;
      for (int j = 0; j < f->count[i]; j++) sum += rows[(size_t)j * n + c] * w[j];
      y[c] = (uint8_t)(sum >> WEIGHT_BITS);
    }
  }
}

static int resize_width(ty_resizer *r, uint8_t *y, const uint8_t *x, int h, int wi, int wo) {
  TY_TRY(make_filter(&r->across, wi, wo));
  TY_TRY(ty_buffer_reserve(&r->row, 3 * (size_t)wi + behind(&r->across)));
  resize_rows(y, x, h, &r->across, r->row.data);
  return 0;
}

static int resize_height(ty_resizer *r, uint8_t *y, const uint8_t *x, int hi, int ho, int w) {
  TY_TRY(make_filter(&r->down, hi, ho));
  resize_columns(y, x, 3 * (size_t)w, &r->down);
  return 0;
}

int ty_resample(ty_resizer *r, uint8_t *y, int ho, int wo, const uint8_t *x, int hi, int wi) {
  if (ho == hi && wo == wi) memcpy(y, x, (size_t)hi * (size_t)wi * 3);
  if (ho == hi) return wo == wi ? 0 : resize_width(r, y, x, hi, wi, wo);
  if (wo == wi) return resize_height(r, y, x, hi, ho, wi);
  TY_TRY(ty_buffer_reserve(&r->narrow, (size_t)hi * (size_t)wo * 3));
  TY_TRY(resize_width(r, r->narrow.data, x, hi, wi, wo));
  return resize_height(r, y, r->narrow.data, hi, ho, wo);
}

void ty_resizer_free(ty_resizer *r) {
  free_filter(&r->across);
  free_filter(&r->down);
  ty_buffer_free(&r->narrow);
  ty_buffer_free(&r->row);
}

int ty_resize(ty_tensor *y, const ty_tensor *x) {
  TY_TRY(ty_check_rgb("resize", "y", y, 3));
  TY_TRY(ty_check_rgb("resize", "x", x, 3));
  ty_resizer r = {0};
  int status = ty_resample(&r, y->data, (int)y->shape[0], (int)y->shape[1], x->data, (int)x->shape[0], (int)x->shape[1]);
  ty_resizer_free(&r);
  return status;
}
