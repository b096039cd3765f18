/* Images as tensors: bytes to normalised real images. Files are decode.c's and encode.c's, sizes resize.c's. */
#include "accept.h"
#include "image.h"

int ty_check_rgb(const char *op, const char *arg, const ty_tensor *t, int ndim) {
  TY_TRY(ty_check_dense(op, arg, t, TY_U8, ndim));
  TY_TRY(ty_check_size(op, arg, t, ndim - 1, 3));
  int64_t h = t->shape[ndim - 3], w = t->shape[ndim - 2];
  if (h < 1 || w < 1 || h > TY_MAX_PIXELS || w > TY_MAX_PIXELS || h * w > TY_MAX_PIXELS)
    return ty_fail("%s: %s must have 1 to %d pixels, got shape %s", op, arg, TY_MAX_PIXELS, ty_shape_text(t));
  return 0;
}

int ty_normalize_images(ty_tensor *y, const ty_tensor *x, const ty_tensor *index, const double *mean, const double *std) {
  TY_TRY(ty_accept_normalize_images(y, x, index));
  int64_t n = x->shape[0], m = index ? index->shape[0] : n, pixels = x->shape[1] * x->shape[2];
  const int64_t *at = index ? index->data : NULL;
  for (int64_t i = 0; at && i < m; i++)
    if (at[i] < 0 || at[i] >= n)
      return ty_fail("normalize_images: index %lld at position %lld is outside 0..%lld", (long long)at[i], (long long)i, (long long)n - 1);
  real table[3][256];
  for (int c = 0; c < 3; c++)
    for (int v = 0; v < 256; v++) table[c][v] = ((real)v / 255 - (real)mean[c]) / (real)std[c];
#pragma omp parallel for if (m * pixels * 3 >= TY_PARALLEL)
  for (int64_t i = 0; i < m; i++) {
    if (ty_is_unwanted()) continue;
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
