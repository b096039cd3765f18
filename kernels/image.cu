/* Bytes to normalised real images, gathered by number: a thread for each element. */
#include "device.h"

struct rgb { real mean[3], scale[3]; };

__global__ void k_normalize_images(real *y, const uint8_t *x, const int64_t *index, int64_t total, int64_t bytes, int64_t limit, rgb by,
                                   fault *f) {
  int64_t i = thread_index(), image = i / bytes, at = i % bytes;
  if (i >= total) return;
  int64_t from = index ? index[image] : image;
  if (!in_range(f, FAULT_IMAGE, from, limit, image)) return;
  y[i] = ((real)x[from * bytes + at] / 255 - by.mean[at % 3]) / by.scale[at % 3];
}

int ty_normalize_images(ty_tensor *y, const ty_tensor *x, const ty_tensor *index, const double *mean, const double *std) {
  TY_TRY(ty_accept_normalize_images(y, x, index));
  rgb by;
  for (int c = 0; c < 3; c++) by.mean[c] = (real)mean[c], by.scale[c] = (real)std[c];
  return launch_each("normalize_images", k_normalize_images, ty_numel(y), y->data, x->data, index ? index->data : NULL, ty_numel(y),
                     x->shape[1] * x->shape[2] * 3, x->shape[0], by, device_fault());
}
