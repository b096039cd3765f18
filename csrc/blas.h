/* The one BLAS routine that is used, for the float type of the build. */
#ifndef TYCHO_BLAS_H
#define TYCHO_BLAS_H
#include "internal.h"

#ifdef TYCHO_DOUBLE
#define GEMM cblas_dgemm
#else
#define GEMM cblas_sgemm
#endif
enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 };
extern void GEMM(int order, int trans_a, int trans_b, int m, int n, int k, real alpha, const real *a, int lda, const real *b, int ldb,
                 real beta, real *c, int ldc);

#endif
