/* What the C sources share and Lua never sees: the float type, errors, shape checks, the threshold for threads. */
#ifndef TYCHO_INTERNAL_H
#define TYCHO_INTERNAL_H
#include "tycho.h"
#include <math.h>
#include <stddef.h>
#include <string.h>

#ifdef TYCHO_DOUBLE
typedef double real;
enum { TY_REAL = TY_F64 };
#define R(name) name /* libm function of the right width: R(exp) */
#else
typedef float real;
enum { TY_REAL = TY_F32 };
#define R(name) name##f
#endif

/* The device whose memory this library computes in. */
#ifndef TY_DEVICE
#define TY_DEVICE TY_CPU
#endif

/* Below this many elements a parallel region costs more than it saves. */
enum { TY_PARALLEL = 16384 };

/* Leaves a sentence in ty_error() and returns 1. */
int ty_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
static inline int ty_no_scratch(const char *op, int64_t bytes) {
  return ty_fail("%s: no memory for %lld bytes of scratch", op, (long long)bytes);
}
/* Whether the result of the running op is not wanted any more. Stays so until the op has returned. */
static inline int ty_is_unwanted(void) { return *ty_unwanted; }
/* "(2, 3, 4)"; valid until the eighth next call on this thread. */
const char *ty_shape_text(const ty_tensor *t);
const char *ty_dtype_name(int dtype);
int ty_dtype_size(int dtype);

static inline int64_t ty_numel(const ty_tensor *t) {
  int64_t n = 1;
  for (int i = 0; i < t->ndim; i++) n *= t->shape[i];
  return n;
}
/* Row-major without gaps. Strides of dims of size 1 do not matter. */
static inline int ty_is_dense(const ty_tensor *t) {
  int64_t expect = 1;
  for (int i = t->ndim - 1; i >= 0; i--) {
    if (t->shape[i] != 1 && t->stride[i] != expect) return 0;
    expect *= t->shape[i];
  }
  return 1;
}
/* (N,C,H,W) over (N,H,W,C) without gaps. */
static inline int ty_is_image(const ty_tensor *t) {
  if (t->ndim != 4) return 0;
  const int order[4] = {1, 3, 2, 0};
  int64_t expect = 1;
  for (int i = 0; i < 4; i++) {
    int d = order[i];
    if (t->shape[d] != 1 && t->stride[d] != expect) return 0;
    expect *= t->shape[d];
  }
  return 1;
}
/* Size classes of cached blocks: 64 bytes up to 1 KiB and then eighths of a power of two, at most 12 % waste. */
enum { TY_SIZE_CLASSES = 512 };
static inline int ty_size_class(int64_t bytes, int64_t *rounded) {
  if (bytes <= 1024) {
    int64_t n = bytes < 1 ? 1 : (bytes + 63) / 64;
    *rounded = n * 64;
    return (int)n;
  }
  int top = 63 - __builtin_clzll((uint64_t)(bytes - 1));
  int shift = top - 3;
  int64_t eighth = (bytes + ((int64_t)1 << shift) - 1) >> shift; /* 9..16 */
  *rounded = eighth << shift;
  return 17 + (top - 10) * 8 + (int)(eighth - 9);
}

int ty_same_shape(const ty_tensor *a, const ty_tensor *b);
int ty_same_layout(const ty_tensor *a, const ty_tensor *b); /* same shape, and strides where they matter */

/* Each returns 0, or fails with a sentence that names the op, the argument and what came. All of them check the device. */
int ty_check_device(const char *op, const char *arg, const ty_tensor *t);
int ty_check_real(const char *op, const char *arg, const ty_tensor *t);
int ty_check_float(const char *op, const char *arg, const ty_tensor *t);           /* real, or on a device a 16-bit float */
int ty_check_type(const char *op, const char *arg, const ty_tensor *t, int dtype); /* that of the others */
int ty_check_dense(const char *op, const char *arg, const ty_tensor *t, int dtype, int ndim); /* ndim -1: any */
int ty_check_image(const char *op, const char *arg, const ty_tensor *t); /* float */
int ty_check_size(const char *op, const char *arg, const ty_tensor *t, int dim, int64_t size);

/* Returns 1 from the calling function when a check or a call fails. */
#define TY_TRY(call) do { if (call) return 1; } while (0)

#endif
