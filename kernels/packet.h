/* Neighbouring elements that a thread reads or writes at once: memory is busiest when each thread moves 16 bytes. */
#ifndef TYCHO_KERNELS_PACKET_H
#define TYCHO_KERNELS_PACKET_H
#include "device.h"
#include <initializer_list>

constexpr size_t WIDE = 16; /* bytes */

template <class T, int N> struct alignas(N * sizeof(T) < WIDE ? N * sizeof(T) : WIDE) packet { T of[N]; };

#ifndef TYCHO_HOST
static __device__ inline void expect_aligned(const void *, size_t) {} /* the device does by itself */

/* Stores are told their words: the compiler writes the elements of a struct one by one where it fails to see that they make one. */
template <size_t BYTES> struct word;
template <> struct word<1> { typedef uint8_t type; };
template <> struct word<2> { typedef uint16_t type; };
template <> struct word<4> { typedef uint32_t type; };
template <> struct word<8> { typedef uint2 type; };
template <> struct word<16> { typedef uint4 type; };
#endif

template <int N, class T> static __device__ inline packet<T, N> packet_at(const T *x) {
  expect_aligned(x, alignof(packet<T, N>));
  return *(const packet<T, N> *)x;
}
template <int N, class T> static __device__ inline void put_packet(T *y, const packet<T, N> &p) {
#ifdef TYCHO_HOST
  expect_aligned(y, alignof(packet<T, N>));
  *(packet<T, N> *)y = p;
#else
  typedef typename word<alignof(packet<T, N>)>::type one;
  for (size_t k = 0; k < sizeof p / sizeof(one); k++) {
    one part;
    memcpy(&part, (const char *)&p + k * sizeof part, sizeof part);
    __stwb((one *)y + k, part);
  }
#endif
}

/* Whether rows of n elements of T at these starts (NULL: none) are whole packets of 16 bytes. */
template <class T> bool are_packets(int64_t n, std::initializer_list<const void *> starts) {
  for (const void *start : starts)
    if ((uintptr_t)start % WIDE != 0) return false;
  return n % (int64_t)(WIDE / sizeof(T)) == 0;
}

/* Calls f with the number of elements that a thread moves at once, as a type: a packet of 16 bytes where there are such, else one. */
template <class T, class F> int for_packets(int64_t n, std::initializer_list<const void *> starts, F f) {
  if (are_packets<T>(n, starts)) return f(std::integral_constant<int, WIDE / sizeof(T)>());
  return f(std::integral_constant<int, 1>());
}
#define COUNT_OF(constant) decltype(constant)::value

/* The same for a float dtype: calls f with a pointer (NULL) to its C type as well. */
template <class F> int for_type_and_packets(int dtype, int64_t n, std::initializer_list<const void *> starts, F f) {
  return for_type(dtype, [&](auto *type) {
    return for_packets<TYPE_OF(type)>(n, starts, [&](auto count) { return f(type, count); });
  });
}

#endif
