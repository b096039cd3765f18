/* The products that are left to a library: cuBLAS (blas.cu), or the CPU's BLAS in the host build (host/blas.cpp). */
#ifndef TYCHO_KERNELS_BLAS_H
#define TYCHO_KERNELS_BLAS_H
#include <stdint.h>

int blas_open(void);
const char *blas_text(void); /* name and version */

/* How a matrix lies in memory: rows ld apart; transposed: its columns do. */
struct blas_layout { int transposed; int64_t ld; };
/* c = a b + beta c, row-major: a (m,k), b (k,n), c (m,n); all matrices of one operand have its layout, c is never transposed. One product. */
int blas_multiply(const char *op, int64_t m, int64_t n, int64_t k, const float *a, blas_layout la, const float *b, blas_layout lb, float beta,
                  float *c, int64_t ldc);
/* count products; a, b and c are arrays of pointers in the device's memory. */
int blas_multiply_all(const char *op, int count, int64_t m, int64_t n, int64_t k, const float *const *a, blas_layout la,
                      const float *const *b, blas_layout lb, float beta, float *const *c, int64_t ldc);

#endif
