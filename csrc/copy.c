/* Copies between any dtypes and memory orders, and filling. */
#include "strided.h"

#define PAIR(to, from)                                                                       \
  static void to##_from_##from(int64_t n, void *const *p, const int64_t *s) {                \
    to *y = p[0];                                                                            \
    const from *x = p[1];                                                                    \
    if (s[0] == 1 && s[1] == 1) {                                                            \
      for (int64_t i = 0; i < n; i++) y[i] = (to)x[i];                                       \
    } else {                                                                                 \
      for (int64_t i = 0; i < n; i++) y[i * s[0]] = (to)x[i * s[1]];                         \
    }                                                                                        \
  }
#define ALL_FROM(to) PAIR(to, float) PAIR(to, double) PAIR(to, int64_t) PAIR(to, int32_t) PAIR(to, uint8_t)
#define ROW(to) {to##_from_float, to##_from_double, to##_from_int64_t, to##_from_int32_t, to##_from_uint8_t}

ALL_FROM(float)
ALL_FROM(double)
ALL_FROM(int64_t)
ALL_FROM(int32_t)
ALL_FROM(uint8_t)

/* Indexed by the dtypes of y and x. */
static const ty_row_loop loops[5][5] = {ROW(float), ROW(double), ROW(int64_t), ROW(int32_t), ROW(uint8_t)};

int ty_copy(ty_tensor *y, const ty_tensor *x) { return ty_strided("copy", loops[y->dtype][x->dtype], y, &x, 1); }

int ty_fill(ty_tensor *y, double value) {
  ty_tensor x = {.data = &value, .ndim = 0, .dtype = TY_F64};
  return ty_copy(y, &x);
}
