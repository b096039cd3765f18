/* Windows of max pooling over channels-last images, for pooling itself and for a batch norm whose result is only pooled. */
#ifndef TYCHO_KERNELS_WINDOW_H
#define TYCHO_KERNELS_WINDOW_H
#include "packet.h"

/* Images of h x w pixels are pooled to oh x ow. packets: of the channels of a pixel. */
struct window { int64_t h, w, oh, ow, packets; int kernel, stride, padding; };

static inline window window_of(const ty_tensor *x, const ty_tensor *y, int kernel, int stride, int padding, int n) {
  return {x->shape[2], x->shape[3], y->shape[2], y->shape[3], x->shape[1] / n, kernel, stride, padding};
}

/* Packet i of the pooled images and of their index: the first maximum of value(packet, j) over its window. NaN wins, as in PyTorch. */
template <int N, class T, class Value>
static __device__ inline void pool_at(T *y, uint8_t *index, const T *x, int64_t i, const window &s, Value value) {
  int64_t c = i % s.packets, pixel = i / s.packets, image = pixel / (s.ow * s.oh);
  int64_t left = pixel % s.ow * s.stride - s.padding, top = pixel / s.ow % s.oh * s.stride - s.padding;
  real best[N] = {};
  packet<uint8_t, N> places = {};
  bool found = false;
  for (int a = 0; a < s.kernel; a++)
    for (int b = 0; b < s.kernel; b++) {
      int64_t row = top + a, column = left + b;
      if (row < 0 || row >= s.h || column < 0 || column >= s.w) continue;
      packet<T, N> in = packet_at<N>(x + (((image * s.h + row) * s.w + column) * s.packets + c) * N);
      for (int j = 0; j < N; j++) {
        real v = value(in, j);
        if (found && !(v > best[j]) && v == v) continue;
        best[j] = v;
        places.of[j] = (uint8_t)(a * s.kernel + b);
      }
      found = true;
    }
  packet<T, N> out;
  for (int j = 0; j < N; j++) out.of[j] = best[j];
  put_packet(y + i * N, out);
  put_packet(index + i * N, places);
}

/* The gradient of packet i of the images: what it collects from the windows that it won. Two of a row of windows are read at once; of ResNet's, which
 * are three wide and two apart, that is all that a pixel is in. */
template <int N, class T> static __device__ inline packet<T, N> pool_back_at(const T *dy, const uint8_t *index, int64_t i, const window &s) {
  int64_t c = i % s.packets, pixel = i / s.packets;
  int64_t column = pixel % s.w + s.padding, row = pixel / s.w % s.h + s.padding, image = pixel / (s.w * s.h);
  int64_t a = row < s.kernel ? 0 : (row - s.kernel) / s.stride + 1, first = column < s.kernel ? 0 : (column - s.kernel) / s.stride + 1;
  int64_t last = column / s.stride < s.ow ? column / s.stride : s.ow - 1;
  real sum[N] = {};
  for (; a < s.oh && a * s.stride <= row; a++)
    for (int64_t b = first; b <= last; b += 2) {
      packet<uint8_t, N> places[2];
      packet<T, N> in[2];
#pragma unroll
      for (int k = 0; k < 2; k++) {
        int64_t at = (((image * s.oh + a) * s.ow + (b + k <= last ? b + k : b)) * s.packets + c) * N;
        places[k] = packet_at<N>(index + at);
        in[k] = packet_at<N>(dy + at);
      }
#pragma unroll
      for (int k = 0; k < 2; k++) {
        int place = b + k <= last ? (int)((row - a * s.stride) * s.kernel + column - (b + k) * s.stride) : -1;
        for (int j = 0; j < N; j++) sum[j] += places[k].of[j] == place ? (real)in[k].of[j] : 0;
      }
    }
  packet<T, N> out;
  for (int j = 0; j < N; j++) out.of[j] = sum[j];
  return out;
}

#endif
