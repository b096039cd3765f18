/* Elementwise operations: the rows of map.def expanded over the strided loop. */
#include "device.h"

/* Functions that map.def names; CUDA's are vectorised and accurate to a few units in the last place. */
static __device__ inline real fast_exp(real x) { return expf(x); }
static __device__ inline real fast_tanh(real x) { return tanhf(x); }
static __device__ inline real normal_cdf(real x) { return 0.5f * erfcf(-x * 0.70710678f); }
static __device__ inline real normal_pdf(real x) { return 0.39894228f * expf(-x * x / 2); }

enum { EACH = 4 }; /* elements of a thread, a block apart */

/* Element i of operand k. Operands may be of different types: a block's threads all take the same branch. */
static __device__ inline real read(const ty_plan &p, int k, int64_t i) {
  if (p.dtype[k] == TY_F16) return ((const half *)p.data[k])[i];
  if (p.dtype[k] == TY_BF16) return ((const brain *)p.data[k])[i];
  return ((const real *)p.data[k])[i];
}
static __device__ inline void write(const ty_plan &p, int64_t i, real v) {
  if (p.dtype[0] == TY_F16) ((half *)p.data[0])[i] = v;
  else if (p.dtype[0] == TY_BF16) ((brain *)p.data[0])[i] = v;
  else ((real *)p.data[0])[i] = v;
}

/* y = F of the inputs; flat: at most one dim, every stride known to the thread without a division. */
template <int INPUTS, class F> __global__ void k_map(ty_plan p, int flat) {
  int64_t first = (int64_t)blockIdx.x * blockDim.x * EACH + threadIdx.x;
  for (int e = 0; e < EACH; e++) {
    int64_t i = first + (int64_t)e * blockDim.x, rest = i, offset[INPUTS + 1];
    if (i >= p.total) return;
    for (int k = 0; k <= INPUTS; k++) offset[k] = flat ? i * p.stride[k][0] : 0;
    for (int d = p.ndim - 1; d >= 0 && !flat; d--) {
      int64_t at = d ? rest % p.shape[d] : rest;
      rest /= p.shape[d];
      for (int k = 0; k <= INPUTS; k++) offset[k] += at * p.stride[k][d];
    }
    real v[INPUTS];
    for (int k = 0; k < INPUTS; k++) v[k] = read(p, k + 1, offset[k + 1]);
    write(p, offset[0], F::at(v));
  }
}

template <int INPUTS, class F> static int run(const char *op, ty_tensor *y, const ty_tensor *const *inputs) {
  ty_plan p;
  TY_TRY(ty_accept_map(op, y, inputs, INPUTS));
  TY_TRY(ty_plan_strided(&p, op, y, inputs, INPUTS));
  return launch(op, k_map<INPUTS, F>, dim3((unsigned)divide_up(p.total, THREADS * EACH)), dim3(THREADS), p, p.ndim <= 1);
}

#define MAP1(name, forward, derivative)                                                                                           \
  struct name##_value {                                                                                                           \
    static __device__ real of(real x) { return forward; }                                                                         \
    static __device__ real at(const real *v) { return of(v[0]); }                                                                 \
  };                                                                                                                              \
  struct name##_slope {                                                                                                           \
    static __device__ real of(real g, real x, real y) { (void)x; (void)y; (void)g; return derivative; }                           \
    static __device__ real at(const real *v) { return of(v[0], v[1], v[2]); }                                                     \
  };                                                                                                                              \
  int ty_##name(ty_tensor *y, const ty_tensor *x) { return run<1, name##_value>(#name, y, &x); }                                  \
  int ty_##name##_back(ty_tensor *dx, const ty_tensor *dy, const ty_tensor *x, const ty_tensor *y) {                              \
    const ty_tensor *inputs[] = {dy, x, y};                                                                                       \
    return run<3, name##_slope>(#name " backward", dx, inputs);                                                                   \
  }

#define SIDE(name, side, derivative)                                                                                              \
  struct name##_slope_##side {                                                                                                    \
    static __device__ real of(real g, real a, real b, real y) { (void)a; (void)b; (void)y; (void)g; return derivative; }          \
    static __device__ real at(const real *v) { return of(v[0], v[1], v[2], v[3]); }                                               \
  };                                                                                                                              \
  int ty_##name##_back_##side(ty_tensor *d, const ty_tensor *dy, const ty_tensor *a, const ty_tensor *b, const ty_tensor *y) {    \
    const ty_tensor *inputs[] = {dy, a, b, y};                                                                                    \
    return run<4, name##_slope_##side>(#name " backward", d, inputs);                                                             \
  }

#define MAP2(name, forward, derivative_a, derivative_b)                                                                           \
  struct name##_value {                                                                                                           \
    static __device__ real of(real a, real b) { return forward; }                                                                 \
    static __device__ real at(const real *v) { return of(v[0], v[1]); }                                                           \
  };                                                                                                                              \
  int ty_##name(ty_tensor *y, const ty_tensor *a, const ty_tensor *b) {                                                           \
    const ty_tensor *inputs[] = {a, b};                                                                                           \
    return run<2, name##_value>(#name, y, inputs);                                                                                \
  }                                                                                                                               \
  SIDE(name, a, derivative_a)                                                                                                     \
  SIDE(name, b, derivative_b)

#include "../csrc/map.def"
