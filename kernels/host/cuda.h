/* As much of CUDA as kernels/ uses, on the CPU: see cuda.cpp. Strict where CUDA is: a barrier or a shuffle that not all threads of the block or warp
 * reach fails the launch, and so does a packet that is not aligned. */
#ifndef TYCHO_HOST_CUDA_H
#define TYCHO_HOST_CUDA_H
#include <stddef.h>
#include <stdint.h>
#include <functional>
#include <string.h>
#include "../../csrc/half.h"

#define __global__
#define __device__
#define __host__
#define __shared__ static /* blocks run one after another */
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned nx = 1, unsigned ny = 1, unsigned nz = 1) : x(nx), y(ny), z(nz) {}
};
struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct __half {
  uint16_t bits;
  __half() = default;
  __half(float v) : bits(ty_to_half(v)) {}
  operator float() const { return ty_from_half(bits); }
};
struct __nv_bfloat16 {
  uint16_t bits;
  __nv_bfloat16() = default;
  __nv_bfloat16(float v) : bits(ty_to_brain(v)) {}
  operator float() const { return ty_from_brain(bits); }
};
static inline float2 make_float2(float first, float second) { return {first, second}; }

extern dim3 gridDim, blockDim, blockIdx, threadIdx;

/* ---- running ---- */

int host_accept(dim3 grid, dim3 block); /* 1 where the launch has failed */
void host_run(dim3 grid, dim3 block, void (*body)(void *), void *arguments);
/* Queues work, which returns 0 unless it fails, or records it while a graph is captured. */
void host_do(std::function<int()> work);
template <class F> void host_launch(dim3 grid, dim3 block, F body) {
  if (host_accept(grid, block)) return;
  host_do([=]() mutable {
    host_run(grid, block, [](void *f) { (*(F *)f)(); }, &body);
    return 0;
  });
}
int host_fail(const char *why); /* the device failed: 1 */
void __syncthreads(void);
void host_sync_warp(void);
void expect_aligned(const void *at, size_t bytes);
uint64_t *host_lanes(void); /* a word for each lane of this thread's warp */

template <class T> T __shfl_xor_sync(unsigned, T value, int mask) {
  static_assert(sizeof(T) <= 8, "a lane holds 8 bytes");
  unsigned lane = (threadIdx.x + blockDim.x * threadIdx.y) % 32;
  memcpy(&host_lanes()[lane], &value, sizeof value);
  host_sync_warp();
  memcpy(&value, &host_lanes()[lane ^ (unsigned)mask], sizeof value);
  host_sync_warp();
  return value;
}
template <class T> T __shfl_down_sync(unsigned lanes, T value, unsigned step) {
  unsigned lane = (threadIdx.x + blockDim.x * threadIdx.y) % 32;
  return __shfl_xor_sync(lanes, value, (int)(lane ^ (lane + step < 32 ? lane + step : lane)));
}
static inline void __syncwarp(unsigned = 0xffffffffu) { host_sync_warp(); }
template <class T> T atomicAdd(T *at, T value) {
  T was = *at;
  *at = was + value;
  return was;
}
template <class T> T atomicCAS(T *at, T expected, T value) {
  T was = *at;
  if (was == expected) *at = value;
  return was;
}
template <class T> T atomicMax(T *at, T value) {
  T was = *at;
  if (value > was) *at = value;
  return was;
}

/* ---- memory and errors: TYCHO_HOST_MEMORY, read at each allocation, is the size of the memory in bytes, for tests of its end ---- */

typedef int cudaError_t;
typedef struct host_stream *cudaStream_t;
typedef struct host_event *cudaEvent_t;
enum { cudaSuccess, cudaErrorMemoryAllocation = 2, cudaErrorLaunchFailure = 719, cudaErrorStreamCaptureUnsupported = 900 };
enum { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice, cudaHostAllocDefault = 0 };
cudaError_t cudaMalloc(void **block, size_t bytes);
cudaError_t cudaFree(void *block);
cudaError_t cudaMemGetInfo(size_t *free_now, size_t *total);
cudaError_t cudaHostAlloc(void **block, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void *block);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaGetLastError(void);
const char *cudaGetErrorString(cudaError_t error);

/* ---- streams and events: work is put off until somebody waits for it, so that what is read too early or written over too early shows ---- */

enum { cudaEventDisableTiming = 2, cudaStreamNonBlocking = 1 };
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventDestroy(cudaEvent_t event);

/* ---- graphs: what is captured is recorded and not run, and runs in order when the graph is launched ---- */

typedef struct host_graph *cudaGraph_t, *cudaGraphExec_t;
enum { cudaStreamCaptureModeRelaxed = 2 };
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, int mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable);

#endif
