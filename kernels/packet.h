/* Neighbouring elements that a thread reads or writes at once: memory is busiest when each thread moves 16 bytes. */
#ifndef TYCHO_KERNELS_PACKET_H
#define TYCHO_KERNELS_PACKET_H
#include "device.h"
#include <initializer_list>

enum { WIDE = 16 }; /* bytes */

template <class T, int N> struct alignas(N * sizeof(T)) packet { T of[N]; };

template <int N, class T> static __device__ inline packet<T, N> packet_at(const T *x) { return *(const packet<T, N> *)x; }
template <int N, class T> static __device__ inline void put_packet(T *y, const packet<T, N> &p) { *(packet<T, N> *)y = p; }

/* Calls f with how many elements of T make a packet, as a type: 16 bytes of them where rows of n elements, and their starts, are whole packets, and one
 * elsewhere. A start that is NULL counts as one. */
template <class T, class F> int for_packets(int64_t n, std::initializer_list<const void *> starts, F f) {
  bool fits = n % (int64_t)(WIDE / sizeof(T)) == 0;
  for (const void *start : starts) fits = fits && (uintptr_t)start % WIDE == 0;
  if (fits) return f(std::integral_constant<int, WIDE / sizeof(T)>());
  return f(std::integral_constant<int, 1>());
}
#define COUNT_OF(constant) decltype(constant)::value

#endif
