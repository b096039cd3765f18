/* cuBLAS. Its matrices are column-major: a row-major c = a b is its c' = b' a', so the factors change places. */
#include "device.h"
#include "blas.h"
#include <cublas_v2.h>
#include <stdio.h>

enum { WORKSPACE = 32 << 20 }; /* what NVIDIA recommends for Hopper; fixed, so that graphs can be captured */

static cublasHandle_t handle;
static char text[64] = "cuBLAS";

static int check(const char *op, cublasStatus_t status) {
  return status == CUBLAS_STATUS_SUCCESS ? 0 : ty_fail("%s: cuBLAS failed: %s", op, cublasGetStatusString(status));
}

int blas_open(void) {
  TY_TRY(check("open", cublasCreate(&handle)));
  TY_TRY(check("open", cublasSetStream(handle, device_stream())));
  void *workspace = ty_alloc(WORKSPACE);
  if (!workspace) return ty_fail("open: the device has no %d MB for cuBLAS", WORKSPACE >> 20);
  return check("open", cublasSetWorkspace(handle, workspace, WORKSPACE));
}
const char *blas_text(void) {
  int major = 0, minor = 0;
  cublasGetProperty(MAJOR_VERSION, &major);
  cublasGetProperty(MINOR_VERSION, &minor);
  snprintf(text, sizeof text, "cuBLAS %d.%d", major, minor);
  return text;
}

static cublasOperation_t op_of(blas_layout layout) { return layout.transposed ? CUBLAS_OP_T : CUBLAS_OP_N; }

int blas_multiply(const char *op, int64_t m, int64_t n, int64_t k, const float *a, blas_layout la, const float *b, blas_layout lb, float beta,
                  float *c, int64_t ldc) {
  const float alpha = 1;
  return check(op, cublasGemmEx(handle, op_of(lb), op_of(la), (int)n, (int)m, (int)k, &alpha, b, CUDA_R_32F, (int)lb.ld, a, CUDA_R_32F,
                                (int)la.ld, &beta, c, CUDA_R_32F, (int)ldc, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
}
int blas_multiply_all(const char *op, int count, int64_t m, int64_t n, int64_t k, const float *const *a, blas_layout la,
                      const float *const *b, blas_layout lb, float beta, float *const *c, int64_t ldc) {
  const float alpha = 1;
  return check(op, cublasGemmBatchedEx(handle, op_of(lb), op_of(la), (int)n, (int)m, (int)k, &alpha, (const void *const *)b, CUDA_R_32F,
                                       (int)lb.ld, (const void *const *)a, CUDA_R_32F, (int)la.ld, &beta, (void *const *)c, CUDA_R_32F,
                                       (int)ldc, count, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
}
