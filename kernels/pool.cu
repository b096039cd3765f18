/* Pooling of channels-last images: a thread for each element of the result, so that no two write to one place. */
#include "device.h"

struct window { int64_t h, w, oh, ow, channels; int kernel, stride, padding; };

static window window_of(const ty_tensor *x, const ty_tensor *y, int kernel, int stride, int padding) {
  return {x->shape[2], x->shape[3], y->shape[2], y->shape[3], x->shape[1], kernel, stride, padding};
}

/* The first maximum of the window; NaN wins, as in PyTorch. */
template <class T> __global__ void k_max_pool(T *y, uint8_t *index, const T *x, int64_t total, window s) {
  int64_t i = thread_index(), c = i % s.channels, pixel = i / s.channels;
  if (i >= total) return;
  int64_t left = pixel % s.ow * s.stride - s.padding, top = pixel / s.ow % s.oh * s.stride - s.padding, image = pixel / (s.ow * s.oh);
  real best = 0;
  int place = -1;
  for (int a = 0; a < s.kernel; a++)
    for (int b = 0; b < s.kernel; b++) {
      int64_t row = top + a, column = left + b;
      if (row < 0 || row >= s.h || column < 0 || column >= s.w) continue;
      real v = x[((image * s.h + row) * s.w + column) * s.channels + c];
      if (place >= 0 && !(v > best) && v == v) continue;
      best = v;
      place = a * s.kernel + b;
    }
  y[i] = best;
  index[i] = (uint8_t)place;
}

int ty_max_pool2d(ty_tensor *y, ty_tensor *index, const ty_tensor *x, int kernel, int stride, int padding) {
  TY_TRY(ty_accept_window("max_pool2d", "y", y, index, "x", x, kernel, stride, padding));
  return for_type(x->dtype, [&](auto *type) {
    return launch_each("max_pool2d", k_max_pool<TYPE_OF(type)>, ty_numel(y), y->data, index->data, x->data, ty_numel(y),
                       window_of(x, y, kernel, stride, padding));
  });
}

/* A pixel collects from the windows that it won. */
template <class T> __global__ void k_max_pool_back(T *dx, const T *dy, const uint8_t *index, int64_t total, window s) {
  int64_t i = thread_index(), c = i % s.channels, pixel = i / s.channels;
  if (i >= total) return;
  int64_t column = pixel % s.w + s.padding, row = pixel / s.w % s.h + s.padding, image = pixel / (s.w * s.h);
  int64_t a = row < s.kernel ? 0 : (row - s.kernel) / s.stride + 1, first = column < s.kernel ? 0 : (column - s.kernel) / s.stride + 1;
  real sum = 0;
  for (; a < s.oh && a * s.stride <= row; a++)
    for (int64_t b = first; b < s.ow && b * s.stride <= column; b++) {
      int64_t at = ((image * s.oh + a) * s.ow + b) * s.channels + c;
      if (index[at] == (row - a * s.stride) * s.kernel + column - b * s.stride) sum += (real)dy[at];
    }
  dx[i] = sum;
}

int ty_max_pool2d_back(ty_tensor *dx, const ty_tensor *dy, const ty_tensor *index, int kernel, int stride, int padding) {
  TY_TRY(ty_accept_window("max_pool2d_back", "dy", dy, index, "dx", dx, kernel, stride, padding));
  return for_type(dx->dtype, [&](auto *type) {
    return launch_each("max_pool2d_back", k_max_pool_back<TYPE_OF(type)>, ty_numel(dx), dx->data, dy->data, index->data, ty_numel(dx),
                       window_of(dx, dy, kernel, stride, padding));
  });
}

template <class T> __global__ void k_average(T *y, const T *x, int64_t total, int64_t channels, int64_t pixels) {
  int64_t i = thread_index();
  if (i >= total) return;
  const T *from = x + i / channels * pixels * channels + i % channels;
  real sum = 0;
  for (int64_t p = 0; p < pixels; p++) sum += (real)from[p * channels];
  y[i] = sum / (real)pixels;
}

int ty_avg_pool2d(ty_tensor *y, const ty_tensor *x) {
  TY_TRY(ty_accept_average("avg_pool2d", "y", y, "x", x));
  return for_type(x->dtype, [&](auto *type) {
    return launch_each("avg_pool2d", k_average<TYPE_OF(type)>, ty_numel(y), y->data, x->data, ty_numel(y), x->shape[1],
                       x->shape[2] * x->shape[3]);
  });
}

template <class T> __global__ void k_average_back(T *dx, const T *dy, int64_t total, int64_t channels, int64_t pixels) {
  int64_t i = thread_index();
  if (i < total) dx[i] = (real)dy[i / (pixels * channels) * channels + i % channels] / (real)pixels;
}

int ty_avg_pool2d_back(ty_tensor *dx, const ty_tensor *dy) {
  TY_TRY(ty_accept_average("avg_pool2d_back", "dy", dy, "dx", dx));
  return for_type(dx->dtype, [&](auto *type) {
    return launch_each("avg_pool2d_back", k_average_back<TYPE_OF(type)>, ty_numel(dx), dx->data, dy->data, ty_numel(dx), dx->shape[1],
                       dx->shape[2] * dx->shape[3]);
  });
}
