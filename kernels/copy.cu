/* Copies between any dtypes and memory orders, and filling. */
#include "strided.h"

template <class To, class From> static __device__ inline To converted(From v) {
  if constexpr (is_short<To> || is_short<From>) return (To)(float)v;
  else return (To)v;
}

template <class To, class From, int N> __global__ void k_copy(ty_plan p) {
  int64_t i = thread_index(), at[2];
  if (i >= p.total) return;
  offsets_of<2>(at, p, i);
  packet<From, N> in = operand<N, From>(p, 1, at[1]);
  packet<To, N> out;
  for (int j = 0; j < N; j++) out.of[j] = converted<To>(in.of[j]);
  put_packet((To *)p.data[0] + at[0], out);
}

template <class To> __global__ void k_fill(ty_plan p, double value) {
  int64_t i = thread_index(), at[1];
  if (i >= p.total) return;
  offsets_of<1>(at, p, i);
  ((To *)p.data[0])[at[0]] = converted<To>(value);
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

enum { EACH = 8 }; /* elements of a thread where they come in packets */
static bool is_float(int dtype) { return dtype == TY_F16 || dtype == TY_BF16 || dtype == TY_REAL; }

int ty_copy(ty_tensor *y, const ty_tensor *x) {
  ty_plan p;
  TY_TRY(ty_accept_copy(y, x));
  TY_TRY(ty_plan_strided(&p, "copy", y, &x, 1));
  int is_run = p.ndim == 0 || (p.ndim == 1 && p.stride[0][0] == 1 && p.stride[1][0] == 1);
  if (is_run && x->dtype == y->dtype) {
    cudaMemcpyAsync(p.data[0], p.data[1], (size_t)(p.total * p.size[0]), cudaMemcpyDeviceToDevice, device_stream());
    return device_launched("copy");
  }
  if (is_float(x->dtype) && is_float(y->dtype) && plan_packets(&p, EACH))
    return for_type(y->dtype, [&](auto *to) {
      return for_type(x->dtype, [&](auto *from) { return launch_each("copy", k_copy<TYPE_OF(to), TYPE_OF(from), EACH>, p.total, p); });
    });
  return for_any_type(y->dtype, [&](auto *to) {
    return for_any_type(x->dtype, [&](auto *from) { return launch_each("copy", k_copy<TYPE_OF(to), TYPE_OF(from), 1>, p.total, p); });
  });
}

int ty_fill(ty_tensor *y, double value) {
  ty_plan p;
  TY_TRY(ty_accept_copy(y, y));
  TY_TRY(ty_plan_strided(&p, "fill", y, NULL, 0));
  return for_any_type(y->dtype, [&](auto *to) { return launch_each("fill", k_fill<TYPE_OF(to)>, p.total, p, value); });
}
