/* Pooling of channels-last images: a thread for each packet of channels of the result, so that no two write to one place. */
#include "packet.h"

/* packets: of the channels of a pixel. */
struct window { int64_t h, w, oh, ow, packets; int kernel, stride, padding; };

static window window_of(const ty_tensor *x, const ty_tensor *y, int kernel, int stride, int padding, int n) {
  return {x->shape[2], x->shape[3], y->shape[2], y->shape[3], x->shape[1] / n, kernel, stride, padding};
}

/* The first maximum of the window; NaN wins, as in PyTorch. */
template <class T, int N> __global__ void k_max_pool(T *y, uint8_t *index, const T *x, int64_t total, window s) {
  int64_t i = thread_index(), c = i % s.packets, pixel = i / s.packets;
  if (i >= total) return;
  int64_t left = pixel % s.ow * s.stride - s.padding, top = pixel / s.ow % s.oh * s.stride - s.padding, image = pixel / (s.ow * s.oh);
  packet<T, N> best = {};
  packet<uint8_t, N> places = {};
  bool found = false;
  for (int a = 0; a < s.kernel; a++)
    for (int b = 0; b < s.kernel; b++) {
      int64_t row = top + a, column = left + b;
      if (row < 0 || row >= s.h || column < 0 || column >= s.w) continue;
      packet<T, N> in = packet_at<N>(x + (((image * s.h + row) * s.w + column) * s.packets + c) * N);
      for (int j = 0; j < N; j++) {
        real v = in.of[j];
        if (found && !(v > (real)best.of[j]) && v == v) continue;
        best.of[j] = in.of[j];
        places.of[j] = (uint8_t)(a * s.kernel + b);
      }
      found = true;
    }
  put_packet(y + i * N, best);
  put_packet(index + i * N, places);
}

int ty_max_pool2d(ty_tensor *y, ty_tensor *index, const ty_tensor *x, int kernel, int stride, int padding) {
  TY_TRY(ty_accept_window("max_pool2d", "y", y, index, "x", x, kernel, stride, padding));
  return for_type_and_packets(x->dtype, x->shape[1], {y->data, index->data, x->data}, [&](auto *type, auto n) {
    int64_t total = ty_numel(y) / COUNT_OF(n);
    return launch_each("max_pool2d", k_max_pool<TYPE_OF(type), COUNT_OF(n)>, total, y->data, index->data, x->data, total,
                       window_of(x, y, kernel, stride, padding, COUNT_OF(n)));
  });
}

/* A pixel collects from the windows that it won. */
template <class T, int N> __global__ void k_max_pool_back(T *dx, const T *dy, const uint8_t *index, int64_t total, window s) {
  int64_t i = thread_index(), c = i % s.packets, pixel = i / s.packets;
  if (i >= total) return;
  int64_t column = pixel % s.w + s.padding, row = pixel / s.w % s.h + s.padding, image = pixel / (s.w * s.h);
  int64_t a = row < s.kernel ? 0 : (row - s.kernel) / s.stride + 1, first = column < s.kernel ? 0 : (column - s.kernel) / s.stride + 1;
  real sum[N] = {};
  for (; a < s.oh && a * s.stride <= row; a++)
    for (int64_t b = first; b < s.ow && b * s.stride <= column; b++) {
      int64_t at = (((image * s.oh + a) * s.ow + b) * s.packets + c) * N;
      packet<uint8_t, N> places = packet_at<N>(index + at);
      packet<T, N> in = packet_at<N>(dy + at);
      int place = (int)((row - a * s.stride) * s.kernel + column - b * s.stride);
      for (int j = 0; j < N; j++) sum[j] += places.of[j] == place ? (real)in.of[j] : 0;
    }
  packet<T, N> out;
  for (int j = 0; j < N; j++) out.of[j] = sum[j];
  put_packet(dx + i * N, out);
}

int ty_max_pool2d_back(ty_tensor *dx, const ty_tensor *dy, const ty_tensor *index, int kernel, int stride, int padding) {
  TY_TRY(ty_accept_window("max_pool2d_back", "dy", dy, index, "dx", dx, kernel, stride, padding));
  return for_type_and_packets(dx->dtype, dx->shape[1], {dx->data, dy->data, index->data}, [&](auto *type, auto n) {
    int64_t total = ty_numel(dx) / COUNT_OF(n);
    return launch_each("max_pool2d_back", k_max_pool_back<TYPE_OF(type), COUNT_OF(n)>, total, dx->data, dy->data, index->data, total,
                       window_of(dx, dy, kernel, stride, padding, COUNT_OF(n)));
  });
}

template <class T, int N> __global__ void k_average(T *y, const T *x, int64_t total, int64_t packets, int64_t pixels) {
  int64_t i = thread_index();
  if (i >= total) return;
  const T *from = x + (i / packets * pixels * packets + i % packets) * N;
  real sum[N] = {};
  for (int64_t p = 0; p < pixels; p++) {
    packet<T, N> in = packet_at<N>(from + p * packets * N);
    for (int j = 0; j < N; j++) sum[j] += (real)in.of[j];
  }
  packet<T, N> out;
  for (int j = 0; j < N; j++) out.of[j] = sum[j] / (real)pixels;
  put_packet(y + i * N, out);
}

int ty_avg_pool2d(ty_tensor *y, const ty_tensor *x) {
  TY_TRY(ty_accept_average("avg_pool2d", "y", y, "x", x));
  return for_type_and_packets(x->dtype, x->shape[1], {y->data, x->data}, [&](auto *type, auto n) {
    int64_t total = ty_numel(y) / COUNT_OF(n);
    return launch_each("avg_pool2d", k_average<TYPE_OF(type), COUNT_OF(n)>, total, y->data, x->data, total, x->shape[1] / COUNT_OF(n),
                       x->shape[2] * x->shape[3]);
  });
}

template <class T, int N> __global__ void k_average_back(T *dx, const T *dy, int64_t total, int64_t packets, int64_t pixels) {
  int64_t i = thread_index();
  if (i >= total) return;
  packet<T, N> p = packet_at<N>(dy + (i / (pixels * packets) * packets + i % packets) * N);
  for (int j = 0; j < N; j++) p.of[j] = (real)p.of[j] / (real)pixels;
  put_packet(dx + i * N, p);
}

int ty_avg_pool2d_back(ty_tensor *dx, const ty_tensor *dy) {
  TY_TRY(ty_accept_average("avg_pool2d_back", "dy", dy, "dx", dx));
  return for_type_and_packets(dx->dtype, dx->shape[1], {dx->data, dy->data}, [&](auto *type, auto n) {
    int64_t total = ty_numel(dx) / COUNT_OF(n);
    return launch_each("avg_pool2d_back", k_average_back<TYPE_OF(type), COUNT_OF(n)>, total, dx->data, dy->data, total, dx->shape[1] / COUNT_OF(n),
                       dx->shape[2] * dx->shape[3]);
  });
}
