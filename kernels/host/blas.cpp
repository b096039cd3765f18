/* The host build's BLAS is the CPU's. */
#include "../blas.h"
extern "C" {
#include "../../csrc/blas.h"
}

int blas_open(void) { return 0; }
const char *blas_text(void) { return "the CPU's BLAS"; }

int blas_multiply(const char *, int64_t m, int64_t n, int64_t k, const float *a, blas_layout la, const float *b, blas_layout lb, float beta,
                  float *c, int64_t ldc) {
  GEMM(ROW_MAJOR, la.transposed ? TRANS : NO_TRANS, lb.transposed ? TRANS : NO_TRANS, (int)m, (int)n, (int)k, 1, a, (int)la.ld, b,
       (int)lb.ld, beta, c, (int)ldc);
  return 0;
}
int blas_multiply_all(const char *op, int count, int64_t m, int64_t n, int64_t k, const float *const *a, blas_layout la,
                      const float *const *b, blas_layout lb, float beta, float *const *c, int64_t ldc) {
  for (int i = 0; i < count; i++) blas_multiply(op, m, n, k, a[i], la, b[i], lb, beta, c[i], ldc);
  return 0;
}
