/* Random numbers as a pure function of (seed, stream, step, index), so they do not depend on threads, devices or history. */
#include "internal.h"
#include "philox.h"

void ty_philox(uint32_t *out4, uint64_t seed, uint64_t stream, uint64_t step, uint64_t index) {
  uint32_t key[2], c[4] = {(uint32_t)index, (uint32_t)(index >> 32), (uint32_t)stream, (uint32_t)step};
  derive_key(key, seed, stream, step);
  philox(c, key[0], key[1]);
  for (int i = 0; i < 4; i++) out4[i] = c[i];
}

void ty_philox_raw(uint32_t *counter4, uint32_t key0, uint32_t key1) { philox(counter4, key0, key1); }

/* 24 bits, so that float and double builds draw the same numbers. */
static inline double unit(uint32_t u) { return (double)(u >> 8) / 16777216.0; }

/* Blocks of four numbers that are drawn together, one in each lane of a vector register. */
enum { LANES = 16 };

/* u[j][i] = number j of block first + i. */
static void draw_blocks(uint32_t u[4][LANES], const uint32_t key[2], uint64_t stream, uint64_t step, int64_t first) {
  uint32_t k0 = key[0], k1 = key[1];
#pragma omp simd
  for (int i = 0; i < LANES; i++) {
    uint64_t block = (uint64_t)(first + i);
    uint32_t c[4] = {(uint32_t)block, (uint32_t)(block >> 32), (uint32_t)stream, (uint32_t)step};
    philox(c, k0, k1);
    for (int j = 0; j < 4; j++) u[j][i] = c[j];
  }
}

/* Makes one block's four numbers of its four draws. */
typedef void (*transform)(double y[4], const double u[4]);

static void to_uniform(double y[4], const double u[4]) { memcpy(y, u, 4 * sizeof *y); }

/* Box-Muller: two normals from two uniforms. */
static void to_normal(double y[4], const double u[4]) {
  for (int i = 0; i < 4; i += 2) {
    double radius = sqrt(-2 * log(1 - u[i])), angle = 6.283185307179586 * u[i + 1];
    y[i] = radius * cos(angle);
    y[i + 1] = radius * sin(angle);
  }
}

static int draw(const char *op, ty_tensor *y, uint64_t seed, uint64_t stream, uint64_t step, transform fn) {
  TY_TRY(ty_check_dense(op, "y", y, TY_REAL, -1));
  int64_t n = ty_numel(y), blocks = (n + 3) / 4;
  real *p = y->data;
  uint32_t key[2];
  derive_key(key, seed, stream, step);
#pragma omp parallel for schedule(static) if (n >= TY_PARALLEL)
  for (int64_t first = 0; first < blocks; first += LANES) {
    if (ty_is_unwanted()) continue;
    uint32_t u[4][LANES];
    draw_blocks(u, key, stream, step, first);
    for (int64_t i = 0; i < LANES && first + i < blocks; i++) {
      double from[4], to[4];
      for (int j = 0; j < 4; j++) from[j] = unit(u[j][i]);
      fn(to, from);
      for (int64_t j = 0, at = 4 * (first + i); j < 4 && at + j < n; j++) p[at + j] = (real)to[j];
    }
  }
  return 0;
}
int ty_uniform(ty_tensor *y, uint64_t seed, uint64_t stream, uint64_t step) { return draw("uniform", y, seed, stream, step, to_uniform); }
int ty_normal(ty_tensor *y, uint64_t seed, uint64_t stream, uint64_t step) { return draw("normal", y, seed, stream, step, to_normal); }
