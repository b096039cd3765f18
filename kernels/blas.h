/* The products that are left to a library: cuBLAS (blas.cu), or the CPU's BLAS in the host build (host/blas.cpp). */
#ifndef TYCHO_KERNELS_BLAS_H
#define TYCHO_KERNELS_BLAS_H
#include <stdint.h>

int blas_open(void);
const char *blas_text(void); /* name and version */

/* How a matrix lies in memory: rows ld apart; transposed: its columns do. */
struct blas_layout { int transposed; int64_t ld; };
/* Float dtypes: of a and b, and of c, which is theirs or float32. Sums are float32. */
struct blas_types { int factors, result; };
/* c = a b + beta c, row-major: a (m,k), b (k,n), c (m,n); all matrices of one operand have its layout, c is never transposed. One product. */
int blas_multiply(const char *op, blas_types type, int64_t m, int64_t n, int64_t k, const void *a, blas_layout la, const void *b,
                  blas_layout lb, float beta, void *c, int64_t ldc);
/* count products; a, b and c are arrays of pointers in the device's memory. */
int blas_multiply_all(const char *op, blas_types type, int count, int64_t m, int64_t n, int64_t k, const void *const *a, blas_layout la,
                      const void *const *b, blas_layout lb, float beta, void *const *c, int64_t ldc);

#endif
