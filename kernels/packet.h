/* Neighbouring elements that a thread reads or writes at once: memory is busiest when each thread moves 16 bytes. */
#ifndef TYCHO_KERNELS_PACKET_H
#define TYCHO_KERNELS_PACKET_H
#include "device.h"
#include <initializer_list>

constexpr size_t WIDE = 16; /* bytes */

template <class T, int N> struct alignas(N * sizeof(T) < WIDE ? N * sizeof(T) : WIDE) packet { T of[N]; };

#ifdef TYCHO_HOST
template <class P> static inline P read_words(const void *x) {
  expect_aligned(x, alignof(P));
  return *(const P *)x;
}
template <class P> static inline void write_words(void *y, const P &p) {
  expect_aligned(y, alignof(P));
  *(P *)y = p;
}
#else
/* Words, because the compiler moves the elements of a struct one by one where it fails to see that they make one. */
template <size_t BYTES> struct word;
template <> struct word<1> { typedef uint8_t type; };
template <> struct word<2> { typedef uint16_t type; };
template <> struct word<4> { typedef uint32_t type; };
template <> struct word<8> { typedef uint2 type; };
template <> struct word<16> { typedef uint4 type; };

template <class P> static __device__ inline P read_words(const void *x) {
  typedef typename word<alignof(P)>::type one;
  P p;
  for (size_t k = 0; k < sizeof(P) / sizeof(one); k++) {
    one part = ((const one *)x)[k];
    memcpy((char *)&p + k * sizeof part, &part, sizeof part);
  }
  return p;
}
template <class P> static __device__ inline void write_words(void *y, const P &p) {
  typedef typename word<alignof(P)>::type one;
  for (size_t k = 0; k < sizeof(P) / sizeof(one); k++) {
    one part;
    memcpy(&part, (const char *)&p + k * sizeof part, sizeof part);
    __stwb((one *)y + k, part);
  }
}
#endif
template <int N, class T> static __device__ inline packet<T, N> packet_at(const T *x) { return read_words<packet<T, N>>(x); }
template <int N, class T> static __device__ inline void put_packet(T *y, const packet<T, N> &p) { write_words(y, p); }

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

#endif
