/* Max pooling with window indices and global average pooling, over channels-last images. */
#include "internal.h"

static int check(const char *op, const ty_tensor *y, const ty_tensor *index, const ty_tensor *x, int kernel, int stride, int padding) {
  TY_TRY(ty_check_image(op, "x", x));
  TY_TRY(ty_check_image(op, "y", y));
  if (index->dtype != TY_U8 || !ty_same_layout(index, y)) return ty_fail("%s: index must be uint8 of y's layout %s", op, ty_shape_text(y));
  if (kernel < 1 || kernel > 15 || stride < 1 || padding < 0 || padding > kernel / 2)
    return ty_fail("%s: expected kernel 1 to 15, stride >= 1, padding 0 to kernel / 2, got %d, %d, %d", op, kernel, stride, padding);
  int64_t h = x->shape[2] + 2 * padding - kernel, w = x->shape[3] + 2 * padding - kernel;
  if (h < 0 || w < 0) return ty_fail("%s: a window of %d does not fit %s with padding %d", op, kernel, ty_shape_text(x), padding);
  if (y->shape[0] != x->shape[0] || y->shape[1] != x->shape[1] || y->shape[2] != h / stride + 1 || y->shape[3] != w / stride + 1)
    return ty_fail("%s: x %s does not give y %s", op, ty_shape_text(x), ty_shape_text(y));
  return 0;
}

int ty_max_pool2d(ty_tensor *y, ty_tensor *index, const ty_tensor *x, int kernel, int stride, int padding) {
  TY_TRY(check("max_pool2d", y, index, x, kernel, stride, padding));
  int64_t C = x->shape[1], H = x->shape[2], W = x->shape[3], OH = y->shape[2], OW = y->shape[3], rows = y->shape[0] * OH;
#pragma omp parallel for schedule(static) if (rows * OW * C >= TY_PARALLEL)
  for (int64_t row = 0; row < rows; row++) {
    int64_t n = row / OH, i = row % OH;
    for (int64_t j = 0; j < OW; j++) {
      real *out = (real *)y->data + (row * OW + j) * C;
      uint8_t *at = (uint8_t *)index->data + (row * OW + j) * C;
      for (int64_t c = 0; c < C; c++) out[c] = -INFINITY, at[c] = 0;
      for (int a = 0; a < kernel; a++) {
        int64_t h = i * stride - padding + a;
        if (h < 0 || h >= H) continue;
        for (int b = 0; b < kernel; b++) {
          int64_t w = j * stride - padding + b;
          if (w < 0 || w >= W) continue;
          const real *in = (const real *)x->data + ((n * H + h) * W + w) * C;
          uint8_t tap = (uint8_t)(a * kernel + b);
          for (int64_t c = 0; c < C; c++) {
            /* A NaN wins, so that it is not lost. */
            int better = in[c] > out[c] || in[c] != in[c] || (out[c] == -INFINITY && at[c] == 0);
            at[c] = better ? tap : at[c];
            out[c] = better ? in[c] : out[c];
          }
        }
      }
    }
  }
  return 0;
}

int ty_max_pool2d_back(ty_tensor *dx, const ty_tensor *dy, const ty_tensor *index, int kernel, int stride, int padding) {
  TY_TRY(check("max_pool2d backward", dy, index, dx, kernel, stride, padding));
  int64_t C = dx->shape[1], H = dx->shape[2], W = dx->shape[3], OH = dy->shape[2], OW = dy->shape[3], rows = dx->shape[0] * H;
  /* Each input pixel gathers from the windows that cover it: no two threads write one place. */
#pragma omp parallel for schedule(static) if (rows * W * C >= TY_PARALLEL)
  for (int64_t row = 0; row < rows; row++) {
    int64_t n = row / H, h = row % H;
    for (int64_t w = 0; w < W; w++) {
      real *out = (real *)dx->data + (row * W + w) * C;
      memset(out, 0, (size_t)C * sizeof(real));
      for (int a = (int)((h + padding) % stride); a < kernel; a += stride) {
        int64_t i = (h + padding - a) / stride;
        if (h + padding < a || i >= OH) continue;
        for (int b = (int)((w + padding) % stride); b < kernel; b += stride) {
          int64_t j = (w + padding - b) / stride, from = ((n * OH + i) * OW + j) * C;
          if (w + padding < b || j >= OW) continue;
          const real *g = (const real *)dy->data + from;
          const uint8_t *at = (const uint8_t *)index->data + from, tap = (uint8_t)(a * kernel + b);
          for (int64_t c = 0; c < C; c++) out[c] += at[c] == tap ? g[c] : 0;
        }
      }
    }
  }
  return 0;
}

static int check_global(const char *op, const ty_tensor *image, const ty_tensor *flat) {
  TY_TRY(ty_check_image(op, "the image", image));
  TY_TRY(ty_check_dense(op, "the average", flat, TY_REAL, 2));
  if (flat->shape[0] != image->shape[0] || flat->shape[1] != image->shape[1] || image->shape[2] * image->shape[3] == 0)
    return ty_fail("%s: image %s and average %s do not fit", op, ty_shape_text(image), ty_shape_text(flat));
  return 0;
}

int ty_avg_pool2d(ty_tensor *y, const ty_tensor *x) {
  TY_TRY(check_global("avg_pool2d", x, y));
  int64_t C = x->shape[1], pixels = x->shape[2] * x->shape[3];
  real scale = (real)1 / (real)pixels;
#pragma omp parallel for schedule(static) if (ty_numel(x) >= TY_PARALLEL)
  for (int64_t n = 0; n < x->shape[0]; n++) {
    real *out = (real *)y->data + n * C;
    const real *in = (const real *)x->data + n * pixels * C;
    memset(out, 0, (size_t)C * sizeof(real));
    for (int64_t p = 0; p < pixels; p++)
      for (int64_t c = 0; c < C; c++) out[c] += in[p * C + c];
    for (int64_t c = 0; c < C; c++) out[c] *= scale;
  }
  return 0;
}

int ty_avg_pool2d_back(ty_tensor *dx, const ty_tensor *dy) {
  TY_TRY(check_global("avg_pool2d backward", dx, dy));
  int64_t C = dx->shape[1], pixels = dx->shape[2] * dx->shape[3];
  real scale = (real)1 / (real)pixels;
#pragma omp parallel for schedule(static) if (ty_numel(dx) >= TY_PARALLEL)
  for (int64_t row = 0; row < dx->shape[0] * pixels; row++) {
    real *out = (real *)dx->data + row * C;
    const real *g = (const real *)dy->data + row / pixels * C;
    for (int64_t c = 0; c < C; c++) out[c] = g[c] * scale;
  }
  return 0;
}
