/* Philox 4x32-10 (Salmon et al., SC 2011): random numbers as a pure function of (seed, stream, step, index), so they do not depend on
 * threads, devices or history. */
#include "internal.h"

static void philox(uint32_t c[4], uint32_t k0, uint32_t k1) {
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
static void derive_key(uint32_t key[2], uint64_t seed, uint64_t stream, uint64_t step) {
  uint32_t c[4] = {(uint32_t)stream, (uint32_t)(stream >> 32), (uint32_t)step, (uint32_t)(step >> 32)};
  philox(c, (uint32_t)seed, (uint32_t)(seed >> 32));
  key[0] = c[0];
  key[1] = c[1];
}

void ty_philox(uint32_t *out4, uint64_t seed, uint64_t stream, uint64_t step, uint64_t index) {
  uint32_t key[2], c[4] = {(uint32_t)index, (uint32_t)(index >> 32), (uint32_t)stream, (uint32_t)step};
  derive_key(key, seed, stream, step);
  philox(c, key[0], key[1]);
  for (int i = 0; i < 4; i++) out4[i] = c[i];
}

void ty_philox_raw(uint32_t *counter4, uint32_t key0, uint32_t key1) { philox(counter4, key0, key1); }

/* 24 bits, so that float and double builds draw the same numbers. */
static inline double unit(uint32_t u) { return (double)(u >> 8) / 16777216.0; }

typedef void (*transform)(real *y, const uint32_t *u, int count);

static void to_uniform(real *y, const uint32_t *u, int count) {
  for (int i = 0; i < count; i++) y[i] = (real)unit(u[i]);
}
/* Box-Muller: two normals from two uniforms. */
static void to_normal(real *y, const uint32_t *u, int count) {
  for (int i = 0; i < count; i++) {
    double radius = sqrt(-2 * log(1 - unit(u[i & ~1]))), angle = 6.283185307179586 * unit(u[i | 1]);
    y[i] = (real)(radius * (i & 1 ? sin(angle) : cos(angle)));
  }
}

static int draw(const char *op, ty_tensor *y, uint64_t seed, uint64_t stream, uint64_t step, transform fn) {
  TY_TRY(ty_check_dense(op, "y", y, TY_REAL, -1));
  int64_t n = ty_numel(y);
  real *p = y->data;
  uint32_t key[2];
  derive_key(key, seed, stream, step);
#pragma omp parallel for schedule(static) if (n >= TY_PARALLEL)
  for (int64_t block = 0; block < (n + 3) / 4; block++) {
    uint32_t c[4] = {(uint32_t)block, (uint32_t)(block >> 32), (uint32_t)stream, (uint32_t)step};
    philox(c, key[0], key[1]);
    int64_t left = n - 4 * block;
    fn(p + 4 * block, c, left < 4 ? (int)left : 4);
  }
  return 0;
}
int ty_uniform(ty_tensor *y, uint64_t seed, uint64_t stream, uint64_t step) { return draw("uniform", y, seed, stream, step, to_uniform); }
int ty_normal(ty_tensor *y, uint64_t seed, uint64_t stream, uint64_t step) { return draw("normal", y, seed, stream, step, to_normal); }
