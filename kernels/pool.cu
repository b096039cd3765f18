/* Pooling of channels-last images: a thread for each packet of channels of the result, so that no two write to one place. */
#include "window.h"

template <class T, int N> __global__ void k_max_pool(T *y, uint8_t *index, const T *x, int64_t total, window s) {
  int64_t i = thread_index();
  if (i < total) pool_at<N>(y, index, x, i, spot_of<N>(i, s), s, [](const packet<T, N> &in, int j) { return (real)in.of[j]; });
}

int ty_max_pool2d(ty_tensor *y, ty_tensor *index, const ty_tensor *x, int kernel, int stride, int padding) {
  TY_TRY(ty_accept_window("max_pool2d", "y", y, index, "x", x, kernel, stride, padding));
  return for_type_and_packets(x->dtype, x->shape[1], {y->data, index->data, x->data}, [&](auto *type, auto n) {
    int64_t total = ty_numel(y) / COUNT_OF(n);
    return launch_each("max_pool2d", k_max_pool<TYPE_OF(type), COUNT_OF(n)>, total, y->data, index->data, x->data, total,
                       window_of(x, y, kernel, stride, padding, COUNT_OF(n)));
  });
}

template <class T, int N> __global__ void k_max_pool_back(T *dx, const T *dy, const uint8_t *index, int64_t total, window s) {
  int64_t i = thread_index(), pixel = i / s.packets;
  if (i < total) put_packet(dx + i * N, pool_back_at<N>(dy, index, pixel, (int)(i - pixel * s.packets) * N, s));
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
