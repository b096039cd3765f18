/* Bytes to normalised images, gathered by number: a thread for each packet of elements. */
#include "packet.h"

struct rgb { real mean[3], scale[3]; };
enum { FOUR_PIXELS = 12 }; /* a packet: whole words of bytes, and whole packets of floats */

/* bytes: of an image; total: packets of all. */
template <class T, int N>
__global__ void k_normalize_images(T *y, const uint8_t *x, const int64_t *index, int64_t total, int64_t bytes, int64_t limit, rgb by,
                                   fault *f) {
  int64_t i = thread_index(), image = i * N / bytes, at = i * N - image * bytes;
  if (i >= total) return;
  int64_t from = index ? index[image] : image;
  if (!in_range(f, FAULT_IMAGE, from, limit, image)) return;
  constexpr int PART = N == FOUR_PIXELS ? 4 : 1;
  for (int j = 0; j < N; j += PART) {
    packet<uint8_t, PART> in = packet_at<PART>(x + from * bytes + at + j);
    packet<T, PART> out;
    for (int k = 0; k < PART; k++) {
      int channel = N == 1 ? (int)(at % 3) : (j + k) % 3;
      out.of[k] = ((real)in.of[k] / 255 - by.mean[channel]) / by.scale[channel];
    }
    put_packet(y + i * N + j, out);
  }
}

int ty_normalize_images(ty_tensor *y, const ty_tensor *x, const ty_tensor *index, const double *mean, const double *std) {
  TY_TRY(ty_accept_normalize_images(y, x, index));
  rgb by;
  for (int c = 0; c < 3; c++) by.mean[c] = (real)mean[c], by.scale[c] = (real)std[c];
  int64_t bytes = x->shape[1] * x->shape[2] * 3;
  bool whole = bytes % FOUR_PIXELS == 0 && are_packets<real>(0, {x->data, y->data});
  int64_t total = ty_numel(y) / (whole ? FOUR_PIXELS : 1);
  return for_type(y->dtype, [&](auto *type) {
    auto kernel = whole ? k_normalize_images<TYPE_OF(type), FOUR_PIXELS> : k_normalize_images<TYPE_OF(type), 1>;
    return launch_each("normalize_images", kernel, total, y->data, x->data, index ? index->data : NULL, total, bytes, x->shape[0], by, device_fault());
  });
}
