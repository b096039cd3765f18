/* Random tensors: the CPU library's numbers (csrc/random.c), one thread for a block of four. */
#include "device.h"
#include "../csrc/philox.h"

template <int NORMAL> __global__ void k_draw(real *y, int64_t n, uint32_t key0, uint32_t key1, uint32_t stream, uint32_t step) {
  int64_t block = thread_index();
  if (4 * block >= n) return;
  uint32_t c[4] = {(uint32_t)block, (uint32_t)((uint64_t)block >> 32), stream, step};
  philox(c, key0, key1);
  double u[4];
  for (int j = 0; j < 4; j++) u[j] = (double)(c[j] >> 8) / 16777216.0;
  for (int j = 0; j < 4 && NORMAL; j += 2) {
    double radius = sqrt(-2 * log(1 - u[j])), angle = 6.283185307179586 * u[j + 1];
    u[j] = radius * cos(angle);
    u[j + 1] = radius * sin(angle);
  }
  for (int j = 0; j < 4 && 4 * block + j < n; j++) y[4 * block + j] = (real)u[j];
}

static int draw(const char *op, ty_tensor *y, uint64_t seed, uint64_t stream, uint64_t step, int normal) {
  TY_TRY(ty_check_dense(op, "y", y, TY_REAL, -1));
  int64_t n = ty_numel(y);
  uint32_t key[2];
  derive_key(key, seed, stream, step);
  return launch_each(op, normal ? k_draw<1> : k_draw<0>, divide_up(n, 4), y->data, n, key[0], key[1], stream, step);
}
int ty_uniform(ty_tensor *y, uint64_t seed, uint64_t stream, uint64_t step) { return draw("uniform", y, seed, stream, step, 0); }
int ty_normal(ty_tensor *y, uint64_t seed, uint64_t stream, uint64_t step) { return draw("normal", y, seed, stream, step, 1); }
