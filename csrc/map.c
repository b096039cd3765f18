/* Elementwise operations: the rows of map.def expanded over the strided loop. Knows no gradients' flow: a derivative is one more
 * elementwise operation. */
#include "fast_math.h"
#include "strided.h"

static int run(const char *op, ty_row_loop loop, ty_tensor *y, const ty_tensor *const *inputs, int count) {
  TY_TRY(ty_check_real(op, "the output", y));
  for (int i = 0; i < count; i++) TY_TRY(ty_check_real(op, "an input", inputs[i]));
  return ty_strided(op, loop, y, inputs, count);
}

/* One loop body in three forms: all strides 1, the last input a scalar, anything. */
#define EACH(i, n) _Pragma("omp simd") for (int64_t i = 0; i < n; i++)

#define MAP1(name, forward, derivative)                                                                                           \
  static void name##_loop(int64_t n, void *const *p, const int64_t *s) {                                                          \
    real *py = p[0];                                                                                                              \
    const real *px = p[1];                                                                                                        \
    if (s[0] == 1 && s[1] == 1) {                                                                                                 \
      EACH(i, n) { real x = px[i]; py[i] = forward; }                                                                             \
    } else {                                                                                                                      \
      for (int64_t i = 0; i < n; i++) { real x = px[i * s[1]]; py[i * s[0]] = forward; }                                          \
    }                                                                                                                             \
  }                                                                                                                               \
  int ty_##name(ty_tensor *y, const ty_tensor *x) { return run(#name, name##_loop, y, &x, 1); }                                   \
  static inline real name##_rule(real x, real y, real g) { (void)x; (void)y; (void)g; return derivative; }                        \
  static void name##_back_loop(int64_t n, void *const *p, const int64_t *s) {                                                     \
    real *pd = p[0];                                                                                                              \
    const real *pg = p[1], *px = p[2], *py = p[3];                                                                                \
    if (s[0] == 1 && s[1] == 1 && s[2] == 1 && s[3] == 1) {                                                                       \
      EACH(i, n) pd[i] = name##_rule(px[i], py[i], pg[i]);                                                                        \
    } else {                                                                                                                      \
      for (int64_t i = 0; i < n; i++) pd[i * s[0]] = name##_rule(px[i * s[2]], py[i * s[3]], pg[i * s[1]]);                       \
    }                                                                                                                             \
  }                                                                                                                               \
  int ty_##name##_back(ty_tensor *dx, const ty_tensor *dy, const ty_tensor *x, const ty_tensor *y) {                              \
    const ty_tensor *inputs[] = {dy, x, y};                                                                                       \
    return run(#name " backward", name##_back_loop, dx, inputs, 3);                                                               \
  }

#define SIDE(name, side, derivative)                                                                                              \
  static inline real name##_rule_##side(real a, real b, real y, real g) {                                                         \
    (void)a; (void)b; (void)y; (void)g;                                                                                           \
    return derivative;                                                                                                            \
  }                                                                                                                               \
  static void name##_back_##side##_loop(int64_t n, void *const *p, const int64_t *s) {                                            \
    real *pd = p[0];                                                                                                              \
    const real *pg = p[1], *pa = p[2], *pb = p[3], *py = p[4];                                                                    \
    if (s[0] == 1 && s[1] == 1 && s[2] == 1 && s[3] == 1 && s[4] == 1) {                                                          \
      EACH(i, n) pd[i] = name##_rule_##side(pa[i], pb[i], py[i], pg[i]);                                                          \
    } else if (s[0] == 1 && s[1] == 1 && s[2] == 1 && s[3] == 0 && s[4] == 1) {                                                   \
      EACH(i, n) pd[i] = name##_rule_##side(pa[i], pb[0], py[i], pg[i]);                                                          \
    } else {                                                                                                                      \
      for (int64_t i = 0; i < n; i++)                                                                                             \
        pd[i * s[0]] = name##_rule_##side(pa[i * s[2]], pb[i * s[3]], py[i * s[4]], pg[i * s[1]]);                                \
    }                                                                                                                             \
  }                                                                                                                               \
  int ty_##name##_back_##side(ty_tensor *d, const ty_tensor *dy, const ty_tensor *a, const ty_tensor *b, const ty_tensor *y) {    \
    const ty_tensor *inputs[] = {dy, a, b, y};                                                                                    \
    return run(#name " backward", name##_back_##side##_loop, d, inputs, 4);                                                       \
  }

#define MAP2(name, forward, derivative_a, derivative_b)                                                                           \
  static void name##_loop(int64_t n, void *const *p, const int64_t *s) {                                                          \
    real *py = p[0];                                                                                                              \
    const real *pa = p[1], *pb = p[2];                                                                                            \
    if (s[0] == 1 && s[1] == 1 && s[2] == 1) {                                                                                    \
      EACH(i, n) { real a = pa[i], b = pb[i]; py[i] = forward; }                                                                  \
    } else if (s[0] == 1 && s[1] == 1 && s[2] == 0) {                                                                             \
      real b = pb[0];                                                                                                             \
      EACH(i, n) { real a = pa[i]; py[i] = forward; }                                                                             \
    } else {                                                                                                                      \
      for (int64_t i = 0; i < n; i++) { real a = pa[i * s[1]], b = pb[i * s[2]]; py[i * s[0]] = forward; }                        \
    }                                                                                                                             \
  }                                                                                                                               \
  int ty_##name(ty_tensor *y, const ty_tensor *a, const ty_tensor *b) {                                                           \
    const ty_tensor *inputs[] = {a, b};                                                                                           \
    return run(#name, name##_loop, y, inputs, 2);                                                                                 \
  }                                                                                                                               \
  SIDE(name, a, derivative_a)                                                                                                     \
  SIDE(name, b, derivative_b)

#include "map.def"
