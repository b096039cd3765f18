/* What the .cu sources share: launching, scratch memory, index faults, and sums within warps and blocks. The same sources are compiled by
 * nvcc and, over host/cuda.h, by a C++ compiler for the CPU (TYCHO_HOST), where blocks run one after another and threads as coroutines. So a
 * kernel is launched by launch() alone, has blocks of whole warps, static shared memory only, and no thread that leaves before a barrier. */
#ifndef TYCHO_KERNELS_DEVICE_H
#define TYCHO_KERNELS_DEVICE_H
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <type_traits>
#ifdef TYCHO_HOST
#include "host/cuda.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#endif
extern "C" {
#include "../csrc/accept.h"
}

#include "block.h"

/* ---- launching: everything runs in order on one stream ---- */

cudaStream_t device_stream(void);
/* After each launch and each call of a library: 1 with a sentence when it failed; TYCHO_SYNC=1 waits for its work. */
int device_launched(const char *op);
int device_check(const char *op, cudaError_t error); /* 1 with a sentence for an error */
const char *device_hint(void); /* the end of a sentence about a failure that earlier work may have caused */
/* 1 with a sentence where ty_alloc has no bytes: an earlier failure is one reason. */
int device_full(const char *op, int64_t bytes);

/* Whether work is recorded for a graph and not done. */
bool device_is_capturing(void);
/* Pinned memory of the host that lives as long as the graph that is captured; NULL when there is none. */
void *device_capture_constant(int64_t bytes);
bool device_has_graphs(void);
/* Just after work begins to be recorded, and just after it ends. */
void memory_begin_capture(void);
void memory_end_capture(void);

/* A kernel's parameter of many bytes, which no thread should copy. */
#ifdef TYCHO_HOST
#define LARGE_ARGUMENT(type) const type &
#else
#define LARGE_ARGUMENT(type) __grid_constant__ const type
#endif

template <class... P, class... A> int launch(const char *op, void (*kernel)(P...), dim3 grid, dim3 block, A... arguments) {
  if (grid.x == 0 || grid.y == 0) return 0;
#ifdef TYCHO_HOST
  host_launch(grid, block, [=] { kernel(P(arguments)...); });
#else
  kernel<<<grid, block, 0, device_stream()>>>(P(arguments)...);
#endif
  return device_launched(op);
}

static inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* One thread for each of n elements. */
template <class... P, class... A> int launch_each(const char *op, void (*kernel)(P...), int64_t n, A... arguments) {
  return launch(op, kernel, dim3((unsigned)divide_up(n, THREADS)), dim3(THREADS), arguments...);
}

/* ---- float types ----
 * Kernels read and write a 16-bit float as they do a real, which it converts to and from; they compute in float32. */

typedef __half half;
typedef __nv_bfloat16 brain;

template <class T> constexpr bool is_short = std::is_same<T, half>::value || std::is_same<T, brain>::value;

/* Calls f with a pointer (NULL) to the C type of a float dtype, for kernels that are templates of it. */
template <class F> int for_type(int dtype, F f) {
  if (dtype == TY_F16) return f((half *)NULL);
  if (dtype == TY_BF16) return f((brain *)NULL);
  return f((real *)NULL);
}
#define TYPE_OF(pointer) typename std::remove_pointer<decltype(pointer)>::type

/* Whether float32 may be rounded to TF32 where tensor cores multiply: ty_set_tf32. */
bool device_tf32(void);

/* t with its last two dims exchanged. */
static inline ty_tensor transposed(const ty_tensor *t) {
  ty_tensor other = *t;
  int i = t->ndim - 2, j = t->ndim - 1;
  other.shape[i] = t->shape[j], other.shape[j] = t->shape[i];
  other.stride[i] = t->stride[j], other.stride[j] = t->stride[i];
  return other;
}

/* Device memory that goes back to the cache when the function returns: later work on the stream may reuse it at once. */
template <class T> struct scratch {
  T *data;
  int64_t bytes;
  explicit scratch(int64_t count) : data((T *)ty_alloc(count * (int64_t)sizeof(T))), bytes(count * (int64_t)sizeof(T)) {}
  ~scratch() { ty_free(data, bytes); }
  int missing(const char *op) const { return data ? 0 : device_full(op, bytes); }
  scratch(const scratch &) = delete;
  void operator=(const scratch &) = delete;
};

/* ---- faults: what only a kernel can see, told at the next wait ---- */

enum { FAULT_NONE, FAULT_INDEX, FAULT_TARGET, FAULT_IMAGE };
struct fault { int kind; int64_t value, position, limit; };
fault *device_fault(void);

static __device__ inline bool in_range(fault *f, int kind, int64_t value, int64_t limit, int64_t position) {
  if (value >= 0 && value < limit) return true;
  if (atomicCAS(&f->kind, (int)FAULT_NONE, kind) == FAULT_NONE) {
    f->value = value;
    f->position = position;
    f->limit = limit;
  }
  return false;
}

#endif
