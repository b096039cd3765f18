/* Elementwise operations: the rows of map.def expanded over the strided loop. */
#include "strided.h"

/* Functions that map.def names; CUDA's are vectorised and accurate to a few units in the last place. */
static __device__ inline real fast_exp(real x) { return expf(x); }
static __device__ inline real fast_tanh(real x) { return tanhf(x); }
static __device__ inline real normal_cdf(real x) { return 0.5f * erfcf(-x * 0.70710678f); }
static __device__ inline real normal_pdf(real x) { return 0.39894228f * expf(-x * x / 2); }

/* N elements of operand k. Operands may be of different types: a block's threads all take the same branch. */
template <int N, class T> static __device__ inline void read_as(real *to, const ty_plan &p, int k, int64_t offset) {
  packet<T, N> in = operand<N, T>(p, k, offset);
  for (int j = 0; j < N; j++) to[j] = in.of[j];
}
template <int N> static __device__ inline void read(real *to, const ty_plan &p, int k, int64_t offset) {
  if (p.dtype[k] == TY_F16) read_as<N, half>(to, p, k, offset);
  else if (p.dtype[k] == TY_BF16) read_as<N, brain>(to, p, k, offset);
  else read_as<N, real>(to, p, k, offset);
}
template <int N, class T> static __device__ inline void write_as(const ty_plan &p, int64_t offset, const real *from) {
  packet<T, N> out;
  for (int j = 0; j < N; j++) out.of[j] = from[j];
  put_packet((T *)p.data[0] + offset, out);
}
template <int N> static __device__ inline void write(const ty_plan &p, int64_t offset, const real *from) {
  if (p.dtype[0] == TY_F16) write_as<N, half>(p, offset, from);
  else if (p.dtype[0] == TY_BF16) write_as<N, brain>(p, offset, from);
  else write_as<N, real>(p, offset, from);
}

/* y = F of the inputs, N elements a thread. */
template <int INPUTS, int N, class F> __global__ void k_map(ty_plan p) {
  int64_t i = thread_index(), at[INPUTS + 1];
  if (i >= p.total) return;
  offsets_of<INPUTS + 1>(at, p, i);
  real in[INPUTS][N], out[N];
  for (int k = 0; k < INPUTS; k++) read<N>(in[k], p, k + 1, at[k + 1]);
  for (int j = 0; j < N; j++) {
    real v[INPUTS];
    for (int k = 0; k < INPUTS; k++) v[k] = in[k][j];
    out[j] = F::at(v);
  }
  write<N>(p, at[0], out);
}

template <int INPUTS, class F> static int run(const char *op, ty_tensor *y, const ty_tensor *const *inputs) {
  enum { EACH = 4 };
  ty_plan p;
  TY_TRY(ty_accept_map(op, y, inputs, INPUTS));
  TY_TRY(ty_plan_strided(&p, op, y, inputs, INPUTS));
  return plan_packets(&p, EACH) ? launch_each(op, k_map<INPUTS, EACH, F>, p.total, p) : launch_each(op, k_map<INPUTS, 1, F>, p.total, p);
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
