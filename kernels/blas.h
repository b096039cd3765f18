/* The products that are left to a library: cuBLAS (blas.cu), or the CPU's BLAS in the host build (host/blas.cpp). */
#ifndef TYCHO_KERNELS_BLAS_H
#define TYCHO_KERNELS_BLAS_H
#include <stdint.h>

int blas_open(void);
const char *blas_text(void); /* name and version */

/* How the matrices of a batch lie in memory: rows ld apart (transposed: columns), matrices step; in elements. A result is never transposed. */
struct blas_layout { int transposed; int64_t ld, step; };
/* Float dtypes: of a and b, and of c, which is theirs or float32. Sums are float32. */
struct blas_types { int factors, result; };
/* c = a b + beta c, count times, row-major: a (m,k), b (k,n), c (m,n). */
int blas_multiply(const char *op, blas_types type, int64_t count, int64_t m, int64_t n, int64_t k, const void *a, blas_layout la, const void *b,
                  blas_layout lb, float beta, void *c, blas_layout lc);
/* The same of matrices that lie anywhere: a, b and c are arrays of pointers in the device's memory, to BLAS_ALIGNED bytes each. Steps are not read. */
enum { BLAS_ALIGNED = 16 };
int blas_multiply_all(const char *op, blas_types type, int64_t count, int64_t m, int64_t n, int64_t k, const void *const *a, blas_layout la,
                      const void *const *b, blas_layout lb, float beta, void *const *c, blas_layout lc);

#endif
