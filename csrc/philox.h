/* Philox 4x32-10 (Salmon et al., SC 2011), for the CPU and for kernels. */
#ifndef TYCHO_PHILOX_H
#define TYCHO_PHILOX_H
#include <stdint.h>

#ifdef __CUDACC__
#define TY_ANYWHERE __host__ __device__
#define TY_UNROLLED _Pragma("unroll")
#else
#define TY_ANYWHERE
#define TY_UNROLLED _Pragma("GCC unroll 10")
#endif

static TY_ANYWHERE inline void philox(uint32_t c[4], uint32_t k0, uint32_t k1) {
  TY_UNROLLED
  for (int round = 0; round < 10; round++) {
    uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
    uint32_t c1 = c[1], c3 = c[3];
    c[0] = (uint32_t)(b >> 32) ^ c1 ^ k0;
    c[1] = (uint32_t)b;
    c[2] = (uint32_t)(a >> 32) ^ c3 ^ k1;
    c[3] = (uint32_t)a;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

/* Streams and steps beyond 32 bits would share counters, so each pair is mixed into the key by one more Philox. */
static inline void derive_key(uint32_t key[2], uint64_t seed, uint64_t stream, uint64_t step) {
  uint32_t c[4] = {(uint32_t)stream, (uint32_t)(stream >> 32), (uint32_t)step, (uint32_t)(step >> 32)};
  philox(c, (uint32_t)seed, (uint32_t)(seed >> 32));
  key[0] = c[0];
  key[1] = c[1];
}

#endif
