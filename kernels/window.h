/* Windows of max pooling over channels-last images, for pooling itself and for a batch norm whose result is only pooled. An image has fewer than 2^31
 * elements (ty_accept_window), so that what lies within one is counted in 32 bits. */
#ifndef TYCHO_KERNELS_WINDOW_H
#define TYCHO_KERNELS_WINDOW_H
#include "packet.h"

/* n / d for 0 <= n < 2^31 by a product (Granlund & Montgomery 1994): a division by what is known at run time only takes some twenty instructions. */
struct divider {
  uint32_t factor;
  int shift;
  explicit divider(int64_t d) : shift(31) {
    while ((int64_t)1 << (shift - 31) < d) shift++;
    factor = (uint32_t)(((uint64_t)1 << shift) / (uint64_t)(d > 0 ? d : 1) + 1);
  }
  __device__ int of(int n) const { return (int)((uint64_t)(uint32_t)n * factor >> shift); }
};

/* Images of h x w pixels are pooled to oh x ow. packets: of the channels of a pixel. */
struct window {
  int h, w, oh, ow, packets, kernel, stride, padding;
  divider by_w, by_ow, by_packets, by_stride;
};

static inline window window_of(const ty_tensor *x, const ty_tensor *y, int kernel, int stride, int padding, int n) {
  const int64_t *in = x->shape, *out = y->shape, packets = in[1] / n;
  return {(int)in[2], (int)in[3], (int)out[2], (int)out[3], (int)packets, kernel, stride, padding,
          divider(in[3]), divider(out[3]), divider(packets), divider(stride)};
}

/* What a packet of the pooled images is of: its image, the first row and column of its window, which may be outside, and its first channel. */
struct spot { int64_t image; int top, left, channel; };
template <int N> static __device__ inline spot spot_of(int64_t i, const window &s) {
  const int of_image = s.oh * s.ow * s.packets;
  const int64_t image = i / of_image;
  const int at = (int)(i - image * of_image), pixel = s.by_packets.of(at), row = s.by_ow.of(pixel);
  return {image, row * s.stride - s.padding, (pixel - row * s.ow) * s.stride - s.padding, (at - pixel * s.packets) * N};
}

/* Packet i of the pooled images and of their index: the first maximum of value(packet, j) over its window. NaN wins, as in PyTorch. */
template <int N, class T, class Value>
static __device__ inline void pool_at(T *y, uint8_t *index, const T *x, int64_t i, spot at, const window &s, Value value) {
  x += at.image * ((int64_t)s.h * s.w * s.packets * N) + at.channel;
  real best[N] = {};
  packet<uint8_t, N> places = {};
  bool found = false;
  for (int a = 0; a < s.kernel; a++)
    for (int b = 0; b < s.kernel; b++) {
      int row = at.top + a, column = at.left + b;
      if (row < 0 || row >= s.h || column < 0 || column >= s.w) continue;
      packet<T, N> in = packet_at<N>(x + (row * s.w + column) * s.packets * N);
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

/* The gradient of N channels of a pixel (of all images): what they collect from the windows that they won. Two of a row of windows are read at once; of
 * ResNet's, which are three wide and two apart, that is all that a pixel is in. */
template <int N, class T>
static __device__ inline packet<T, N> pool_back_at(const T *dy, const uint8_t *index, int64_t pixel, int channel, const window &s) {
  const int of_image = s.h * s.w;
  const int64_t image = pixel / of_image, start = image * ((int64_t)s.oh * s.ow * s.packets * N) + channel;
  const int at = (int)(pixel - image * of_image), in_row = s.by_w.of(at), row = in_row + s.padding, column = at - in_row * s.w + s.padding;
  const int top = row < s.kernel ? 0 : s.by_stride.of(row - s.kernel) + 1, left = column < s.kernel ? 0 : s.by_stride.of(column - s.kernel) + 1;
  auto has = [&](int b) { return b < s.ow && b * s.stride <= column; };
  dy += start, index += start;
  real sum[N] = {};
  for (int a = top; a < s.oh && a * s.stride <= row; a++)
    for (int b = left; has(b); b += 2) {
      packet<uint8_t, N> places[2];
      packet<T, N> in[2];
#pragma unroll
      for (int k = 0; k < 2; k++) {
        int from = (a * s.ow + (has(b + k) ? b + k : b)) * s.packets * N;
        places[k] = packet_at<N>(index + from);
        in[k] = packet_at<N>(dy + from);
      }
#pragma unroll
      for (int k = 0; k < 2; k++) {
        int place = has(b + k) ? (row - a * s.stride) * s.kernel + column - (b + k) * s.stride : -1;
        for (int j = 0; j < N; j++) sum[j] += places[k].of[j] == place ? (real)in[k].of[j] : 0;
      }
    }
  packet<T, N> out;
  for (int j = 0; j < N; j++) out.of[j] = sum[j];
  return out;
}

#endif
