/* Errors, and the checks of shape, dtype, memory order and device that every library makes of its arguments. */
#include "internal.h"
#include <stdarg.h>
#include <stdio.h>

static __thread char error_text[1024];

int ty_fail(const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(error_text, sizeof error_text, format, args);
  va_end(args);
  return 1;
}
const char *ty_error(void) { return error_text; }

const char *ty_shape_text(const ty_tensor *t) {
  static __thread char ring[8][128];
  static __thread int next;
  char *text = ring[next++ & 7];
  int n = snprintf(text, 128, "(");
  for (int i = 0; i < t->ndim; i++) n += snprintf(text + n, 128 - n, i ? ", %lld" : "%lld", (long long)t->shape[i]);
  snprintf(text + n, 128 - n, ")");
  return text;
}
const char *ty_dtype_name(int dtype) {
  static const char *const names[] = {"float32", "float64", "int64", "int32", "uint8", "float16", "bfloat16"};
  return dtype >= 0 && dtype < 7 ? names[dtype] : "unknown";
}
int ty_dtype_size(int dtype) {
  static const int sizes[] = {4, 8, 8, 4, 1, 2, 2};
  return sizes[dtype];
}
int ty_same_shape(const ty_tensor *a, const ty_tensor *b) {
  if (a->ndim != b->ndim) return 0;
  for (int i = 0; i < a->ndim; i++)
    if (a->shape[i] != b->shape[i]) return 0;
  return 1;
}
int ty_same_layout(const ty_tensor *a, const ty_tensor *b) {
  if (!ty_same_shape(a, b)) return 0;
  for (int i = 0; i < a->ndim; i++)
    if (a->shape[i] != 1 && a->stride[i] != b->stride[i]) return 0;
  return 1;
}
int ty_check_device(const char *op, const char *arg, const ty_tensor *t) {
  static const char *const names[] = {"cpu", "cuda", "cuda-host"};
  if (t->device == TY_DEVICE) return 0;
  return ty_fail("%s: %s of shape %s is on %s, the others are on %s; move one with :to('%s')", op, arg, ty_shape_text(t), names[t->device],
                 names[TY_DEVICE], names[TY_DEVICE]);
}
int ty_check_real(const char *op, const char *arg, const ty_tensor *t) {
  if (t->dtype == TY_REAL) return ty_check_device(op, arg, t);
  return ty_fail("%s: %s must be %s, got %s %s; convert it with :to('%s')", op, arg, ty_dtype_name(TY_REAL), ty_dtype_name(t->dtype),
                 ty_shape_text(t), sizeof(real) == 8 ? "f64" : "f32");
}
int ty_check_float(const char *op, const char *arg, const ty_tensor *t) {
  int is_short = t->dtype == TY_F16 || t->dtype == TY_BF16;
  if (is_short && TY_DEVICE == TY_CPU)
    return ty_fail("%s: %s %s is %s, with which the CPU does not compute; convert it with :to('f32')", op, arg, ty_shape_text(t),
                   ty_dtype_name(t->dtype));
  return is_short ? ty_check_device(op, arg, t) : ty_check_real(op, arg, t);
}
int ty_check_type(const char *op, const char *arg, const ty_tensor *t, int dtype) {
  if (t->dtype == dtype) return ty_check_device(op, arg, t);
  return ty_fail("%s: %s must be %s as the others are, got %s %s", op, arg, ty_dtype_name(dtype), ty_dtype_name(t->dtype), ty_shape_text(t));
}
int ty_check_dense(const char *op, const char *arg, const ty_tensor *t, int dtype, int ndim) {
  if (t->dtype != dtype) return ty_fail("%s: %s must be %s, got %s %s", op, arg, ty_dtype_name(dtype), ty_dtype_name(t->dtype), ty_shape_text(t));
  if (ndim >= 0 && t->ndim != ndim) return ty_fail("%s: %s must have %d dims, got shape %s", op, arg, ndim, ty_shape_text(t));
  if (!ty_is_dense(t)) return ty_fail("%s: %s of shape %s must be contiguous", op, arg, ty_shape_text(t));
  return ty_check_device(op, arg, t);
}
int ty_check_image(const char *op, const char *arg, const ty_tensor *t) {
  TY_TRY(ty_check_float(op, arg, t));
  if (t->ndim != 4) return ty_fail("%s: %s must have shape (N, C, H, W), got %s", op, arg, ty_shape_text(t));
  if (!ty_is_image(t)) return ty_fail("%s: %s of shape %s must be channels-last in memory", op, arg, ty_shape_text(t));
  return 0;
}
int ty_check_size(const char *op, const char *arg, const ty_tensor *t, int dim, int64_t size) {
  if (dim < t->ndim && t->shape[dim] == size) return 0;
  return ty_fail("%s: %s must have size %lld in dim %d, got shape %s", op, arg, (long long)size, dim, ty_shape_text(t));
}
