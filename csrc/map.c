/* Elementwise operations: the rows of map.def expanded over the strided loop. Knows no gradients' flow: a derivative is one more
 * elementwise operation. */
#include "accept.h"
#include "fast_math.h"

enum { INPUTS = TY_OPERANDS - 1, SPAN = 1024 };

#ifdef TYCHO_DOUBLE
static inline real fast_tanh(real x) { return tanh(x); }
#else
/* An odd polynomial near 0, where the exponential form loses digits; to 3 units in the last place. */
static inline real fast_tanh(real x) {
  float size = fabsf(x), s = x * x;
  float p = -0.00570498416f;
  p = p * s + 0.0206390847f;
  p = p * s - 0.0537397143f;
  p = p * s + 0.133314422f;
  p = p * s - 0.333332819f;
  float near = size + size * s * p, far = 1 - 2 / (fast_exp(2 * size) + 1);
  float y = size < 0.625f ? near : far;
  return copysignf(y, x);
}
#endif

static int run(const char *op, ty_row_loop loop, ty_tensor *y, const ty_tensor *const *inputs, int count) {
  TY_TRY(ty_accept_map(op, y, inputs, count));
  return ty_strided(op, loop, y, inputs, count);
}

/* Part of a row with every operand at stride 1, in place or in a buffer, so that each rule has one loop and that one vectorises. */
typedef struct span {
  real *out;
  const real *in[INPUTS];
  real buffer[TY_OPERANDS][SPAN];
} span;

/* Returns the number of elements of the span that begins at start. */
static int64_t load(span *v, int64_t start, int64_t n, void *const *p, const int64_t *s, int inputs) {
  int staged = s[0] != 1;
  for (int k = 1; k <= inputs; k++) staged = staged || s[k] != 1;
  int64_t count = n - start;
  if (staged && count > SPAN) count = SPAN;
  v->out = s[0] == 1 ? (real *)p[0] + start : v->buffer[0];
  for (int k = 1; k <= inputs; k++) {
    const real *from = (const real *)p[k] + start * s[k];
    real *to = v->buffer[k];
    v->in[k - 1] = s[k] == 1 ? from : to;
    if (s[k] == 1 || (s[k] == 0 && start > 0)) continue;
    for (int64_t i = 0; i < count; i++) to[i] = from[i * s[k]];
  }
  return count;
}
static void store(const span *v, int64_t start, int64_t count, real *y, int64_t step) {
  if (step == 1) return;
  for (int64_t i = 0; i < count; i++) y[(start + i) * step] = v->out[i];
}

#define LOOP(name, inputs, rule)                                                                                                  \
  static void name(int64_t n, void *const *p, const int64_t *s) {                                                                 \
    span v;                                                                                                                       \
    for (int64_t start = 0, count; start < n; start += count) {                                                                   \
      count = load(&v, start, n, p, s, inputs);                                                                                   \
      _Pragma("omp simd") for (int64_t i = 0; i < count; i++) v.out[i] = rule;                                                    \
      store(&v, start, count, p[0], s[0]);                                                                                        \
    }                                                                                                                             \
  }

#define MAP1(name, forward, derivative)                                                                                           \
  static inline real name##_value(real x) { return forward; }                                                                     \
  static inline real name##_slope(real x, real y, real g) { (void)x; (void)y; (void)g; return derivative; }                       \
  LOOP(name##_loop, 1, name##_value(v.in[0][i]))                                                                                  \
  LOOP(name##_back_loop, 3, name##_slope(v.in[1][i], v.in[2][i], v.in[0][i]))                                                     \
  int ty_##name(ty_tensor *y, const ty_tensor *x) { return run(#name, name##_loop, y, &x, 1); }                                   \
  int ty_##name##_back(ty_tensor *dx, const ty_tensor *dy, const ty_tensor *x, const ty_tensor *y) {                              \
    const ty_tensor *inputs[] = {dy, x, y};                                                                                       \
    return run(#name " backward", name##_back_loop, dx, inputs, 3);                                                               \
  }

#define SIDE(name, side, derivative)                                                                                              \
  static inline real name##_slope_##side(real a, real b, real y, real g) {                                                        \
    (void)a; (void)b; (void)y; (void)g;                                                                                           \
    return derivative;                                                                                                            \
  }                                                                                                                               \
  LOOP(name##_back_##side##_loop, 4, name##_slope_##side(v.in[1][i], v.in[2][i], v.in[3][i], v.in[0][i]))                         \
  int ty_##name##_back_##side(ty_tensor *d, const ty_tensor *dy, const ty_tensor *a, const ty_tensor *b, const ty_tensor *y) {    \
    const ty_tensor *inputs[] = {dy, a, b, y};                                                                                    \
    return run(#name " backward", name##_back_##side##_loop, d, inputs, 4);                                                       \
  }

#define MAP2(name, forward, derivative_a, derivative_b)                                                                           \
  static inline real name##_value(real a, real b) { return forward; }                                                             \
  LOOP(name##_loop, 2, name##_value(v.in[0][i], v.in[1][i]))                                                                      \
  int ty_##name(ty_tensor *y, const ty_tensor *a, const ty_tensor *b) {                                                           \
    const ty_tensor *inputs[] = {a, b};                                                                                           \
    return run(#name, name##_loop, y, inputs, 2);                                                                                 \
  }                                                                                                                               \
  SIDE(name, a, derivative_a)                                                                                                     \
  SIDE(name, b, derivative_b)

#include "map.def"
