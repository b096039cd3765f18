/* Where the operands of a strided loop (csrc/strided.h) lie, for kernels that have a thread for each packet of the result. */
#ifndef TYCHO_KERNELS_STRIDED_H
#define TYCHO_KERNELS_STRIDED_H
#include "packet.h"

/* Counts p's innermost dim in packets of n elements, where every operand has them: next to each other, or all the same one. Returns whether. */
static inline bool plan_packets(ty_plan *p, int n) {
  int last = p->ndim - 1;
  if (last < 0 || p->shape[last] % n != 0 || p->stride[0][last] != 1) return false;
  for (int k = 0; k < p->operands; k++) {
    if (p->stride[k][last] == 0) continue;
    size_t bytes = (size_t)(n * p->size[k]);
    if (p->stride[k][last] != 1 || (uintptr_t)p->data[k] % (bytes < WIDE ? bytes : WIDE) != 0) return false;
    for (int d = 0; d < last; d++)
      if (p->stride[k][d] % n != 0) return false;
  }
  p->shape[last] /= n;
  p->total /= n;
  for (int k = 0; k < p->operands; k++) p->stride[k][last] *= n;
  return true;
}

/* The first elements of packet i in all operands. */
template <int OPERANDS> static __host__ __device__ inline void offsets_of(int64_t *offset, const ty_plan &p, int64_t i) {
  for (int k = 0; k < OPERANDS; k++) offset[k] = 0;
  for (int d = p.ndim - 1; d >= 0; d--) {
    int64_t at = i;
    if (d) {
      i /= p.shape[d];
      at -= i * p.shape[d];
    }
    for (int k = 0; k < OPERANDS; k++) offset[k] += at * p.stride[k][d];
  }
}

/* N elements of operand k from an offset on: neighbours, or one N times. */
template <int N, class T> static __device__ inline packet<T, N> operand(const ty_plan &p, int k, int64_t offset) {
  const T *x = (const T *)p.data[k] + offset;
  if constexpr (N > 1)
    if (p.stride[k][p.ndim - 1] == 0) {
      packet<T, N> same;
      for (int j = 0; j < N; j++) same.of[j] = *x;
      return same;
    }
  return packet_at<N>(x);
}

#endif
