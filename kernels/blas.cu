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
  TY_TRY(check("open", cublasSetMathMode(handle, CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION)));
  void *workspace = ty_alloc(WORKSPACE);
  if (!workspace) return device_full("open", WORKSPACE);
  return check("open", cublasSetWorkspace(handle, workspace, WORKSPACE));
}
const char *blas_text(void) {
  int major = 0, minor = 0;
  cublasGetProperty(MAJOR_VERSION, &major);
  cublasGetProperty(MINOR_VERSION, &minor);
  snprintf(text, sizeof text, "cuBLAS %d.%d", major, minor);
  return text;
}

static int multiplied(const char *op, cublasStatus_t status) {
  return status == CUBLAS_STATUS_SUCCESS ? device_launched(op) : ty_fail("%s: cuBLAS failed: %s%s", op, cublasGetStatusString(status), device_hint());
}

static cublasOperation_t op_of(blas_layout layout) { return layout.transposed ? CUBLAS_OP_T : CUBLAS_OP_N; }

static cudaDataType_t data_of(int dtype) { return dtype == TY_F16 ? CUDA_R_16F : dtype == TY_BF16 ? CUDA_R_16BF : CUDA_R_32F; }
static cublasComputeType_t compute_of(blas_types type) {
  return type.factors == TY_F32 && device_tf32() ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
}

int blas_multiply(const char *op, blas_types type, int64_t count, int64_t m, int64_t n, int64_t k, const void *a, blas_layout la, const void *b,
                  blas_layout lb, float beta, void *c, blas_layout lc) {
  const float alpha = 1;
  const cudaDataType_t in = data_of(type.factors), out = data_of(type.result);
  if (count == 1)
    return multiplied(op, cublasGemmEx(handle, op_of(lb), op_of(la), (int)n, (int)m, (int)k, &alpha, b, in, (int)lb.ld, a, in, (int)la.ld, &beta, c,
                                       out, (int)lc.ld, compute_of(type), CUBLAS_GEMM_DEFAULT));
  return multiplied(op, cublasGemmStridedBatchedEx(handle, op_of(lb), op_of(la), (int)n, (int)m, (int)k, &alpha, b, in, (int)lb.ld, lb.step, a, in,
                                                   (int)la.ld, la.step, &beta, c, out, (int)lc.ld, lc.step, (int)count, compute_of(type),
                                                   CUBLAS_GEMM_DEFAULT));
}
int blas_multiply_all(const char *op, blas_types type, int64_t count, int64_t m, int64_t n, int64_t k, const void *const *a, blas_layout la,
                      const void *const *b, blas_layout lb, float beta, void *const *c, blas_layout lc) {
  const float alpha = 1;
  const cudaDataType_t in = data_of(type.factors), out = data_of(type.result);
  return multiplied(op, cublasGemmBatchedEx(handle, op_of(lb), op_of(la), (int)n, (int)m, (int)k, &alpha, b, in, (int)lb.ld, a, in, (int)la.ld, &beta,
                                            c, out, (int)lc.ld, (int)count, compute_of(type), CUBLAS_GEMM_DEFAULT));
}
