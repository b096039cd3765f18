/* Copies between any dtypes and memory orders, and filling. */
#include "device.h"

static __device__ inline int64_t offset_of(const ty_plan &p, int k, int64_t i) {
  int64_t offset = 0;
  for (int d = p.ndim - 1; d >= 0; d--) {
    offset += (d ? i % p.shape[d] : i) * p.stride[k][d];
    i /= p.shape[d];
  }
  return offset;
}

template <class To, class From> static __device__ inline To converted(From v) {
  if constexpr (is_short<To> || is_short<From>) return (To)(float)v;
  else return (To)v;
}

template <class To, class From> __global__ void k_copy(ty_plan p) {
  int64_t i = thread_index();
  if (i < p.total) ((To *)p.data[0])[offset_of(p, 0, i)] = converted<To>(((const From *)p.data[1])[offset_of(p, 1, i)]);
}

template <class To> __global__ void k_fill(ty_plan p, double value) {
  int64_t i = thread_index();
  if (i < p.total) ((To *)p.data[0])[offset_of(p, 0, i)] = converted<To>(value);
}

/* Calls f with a pointer (NULL) to the C type of any dtype. */
template <class F> static int for_any_type(int dtype, F f) {
  switch (dtype) {
  case TY_F64: return f((double *)NULL);
  case TY_I64: return f((int64_t *)NULL);
  case TY_I32: return f((int32_t *)NULL);
  case TY_U8: return f((uint8_t *)NULL);
  default: return for_type(dtype, f);
  }
}

int ty_copy(ty_tensor *y, const ty_tensor *x) {
  ty_plan p;
  TY_TRY(ty_accept_copy(y, x));
  TY_TRY(ty_plan_strided(&p, "copy", y, &x, 1));
  int is_run = p.ndim == 0 || (p.ndim == 1 && p.stride[0][0] == 1 && p.stride[1][0] == 1);
  if (is_run && x->dtype == y->dtype) {
    cudaMemcpyAsync(p.data[0], p.data[1], (size_t)(p.total * p.size[0]), cudaMemcpyDeviceToDevice, device_stream());
    return device_launched("copy");
  }
  return for_any_type(y->dtype, [&](auto *to) {
    return for_any_type(x->dtype, [&](auto *from) { return launch_each("copy", k_copy<TYPE_OF(to), TYPE_OF(from)>, p.total, p); });
  });
}

int ty_fill(ty_tensor *y, double value) {
  ty_plan p;
  TY_TRY(ty_accept_copy(y, y));
  TY_TRY(ty_plan_strided(&p, "fill", y, NULL, 0));
  return for_any_type(y->dtype, [&](auto *to) { return launch_each("fill", k_fill<TYPE_OF(to)>, p.total, p, value); });
}
