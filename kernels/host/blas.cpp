/* The host build's BLAS is the CPU's, over float32 copies of what is not float32. */
#include "widen.h"
#include "../blas.h"
extern "C" {
#include "../../csrc/blas.h"
}

int blas_open(void) { return 0; }
const char *blas_text(void) { return "the CPU's BLAS"; }

/* As cuBLAS wants all that it cannot see before it chooses how to read it. */
static bool is_aligned(const void *matrix) { return (uintptr_t)matrix % BLAS_ALIGNED == 0; }

/* Elements from the first of a matrix to its last. */
static int64_t span(int64_t rows, int64_t columns, blas_layout l) { return l.transposed ? (columns - 1) * l.ld + rows : (rows - 1) * l.ld + columns; }

static int multiply(blas_types type, int64_t m, int64_t n, int64_t k, const void *a, blas_layout la, const void *b, blas_layout lb, float beta, void *c,
                    int64_t ldc) {
  widened left(type.factors, a, span(m, k, la)), right(type.factors, b, span(k, n, lb));
  return narrowed(type.result, c, span(m, n, {0, ldc, 0}), [&](float *to) {
    GEMM(ROW_MAJOR, la.transposed ? TRANS : NO_TRANS, lb.transposed ? TRANS : NO_TRANS, (int)m, (int)n, (int)k, 1, left.data(), (int)la.ld,
         right.data(), (int)lb.ld, beta, to, (int)ldc);
    return 0;
  });
}

int blas_multiply(const char *op, blas_types type, int64_t count, int64_t m, int64_t n, int64_t k, const void *a, blas_layout la, const void *b,
                  blas_layout lb, float beta, void *c, blas_layout lc) {
  const int64_t in = ty_dtype_size(type.factors), out = ty_dtype_size(type.result);
  return call_library(op, [=] {
    for (int64_t i = 0; i < count; i++)
      multiply(type, m, n, k, (const char *)a + i * la.step * in, la, (const char *)b + i * lb.step * in, lb, beta, (char *)c + i * lc.step * out, lc.ld);
    return 0;
  });
}
int blas_multiply_all(const char *op, blas_types type, int64_t count, int64_t m, int64_t n, int64_t k, const void *const *a, blas_layout la,
                      const void *const *b, blas_layout lb, float beta, void *const *c, blas_layout lc) {
  return call_library(op, [=] { /* the pointers are the device's, and not there before */
    for (int64_t i = 0; i < count; i++) {
      if (!is_aligned(a[i]) || !is_aligned(b[i]) || !is_aligned(c[i])) return host_fail("misaligned address");
      multiply(type, m, n, k, a[i], la, b[i], lb, beta, c[i], lc.ld);
    }
    return 0;
  });
}
