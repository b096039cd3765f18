/* How the host build calls the CPU's BLAS and convolutions; of tensors that are not float32, or that TF32 would round, these see float32 copies. */
#ifndef TYCHO_HOST_WIDEN_H
#define TYCHO_HOST_WIDEN_H
#include "../device.h"
#include <vector>

/* What a call of a library returns: its work waits its turn, as a kernel's does. */
template <class F> static int call_library(const char *op, F work) {
  host_do(work);
  return device_launched(op);
}

/* 10 bits of fraction, ties to even. */
static inline float to_tf32(float v) {
  uint32_t bits = ty_bits_of(v);
  return v - v == 0 ? ty_float_of((bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu) : v;
}
static inline float element(int dtype, const void *x, int64_t i) {
  return dtype == TY_F16 ? (float)((const half *)x)[i] : dtype == TY_BF16 ? (float)((const brain *)x)[i] : ((const float *)x)[i];
}

/* n elements at x, to be read as floats. */
class widened {
  std::vector<float> copy;
  const float *at;

public:
  widened(int dtype, const void *x, int64_t n) : at((const float *)x) {
    if (dtype == TY_F32 && !device_tf32()) return;
    copy.resize((size_t)n);
    for (int64_t i = 0; i < n; i++) copy[(size_t)i] = dtype == TY_F32 ? to_tf32(((const float *)x)[i]) : element(dtype, x, i);
    at = copy.data();
  }
  const float *data() const { return at; }
};

/* fill(floats) writes, over what is there, the n elements at y. Returns what fill does. */
template <class F> static int narrowed(int dtype, void *y, int64_t n, F fill) {
  if (dtype == TY_F32) return fill((float *)y);
  std::vector<float> wide((size_t)n);
  for (int64_t i = 0; i < n; i++) wide[(size_t)i] = element(dtype, y, i);
  TY_TRY(fill(wide.data()));
  for (int64_t i = 0; i < n; i++) {
    if (dtype == TY_F16) ((half *)y)[i] = wide[(size_t)i];
    else ((brain *)y)[i] = wide[(size_t)i];
  }
  return 0;
}

#endif
