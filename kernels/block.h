/* What the threads of a block do together. The head of every kernel that is compiled at run time (lua/tycho/kernel/), so it includes nothing. */
#ifndef TYCHO_KERNELS_BLOCK_H
#define TYCHO_KERNELS_BLOCK_H

enum { WARP = 32, THREADS = 256 };
#define ALL_LANES 0xffffffffu

static __device__ inline int64_t thread_index(void) { return (int64_t)blockIdx.x * blockDim.x + threadIdx.x; }

/* ---- sums: blockDim.x whole warps, y and z 1; every thread gets the result ---- */

struct add_up { template <class T> static __device__ T of(T a, T b) { return a + b; } };
struct largest_of { template <class T> static __device__ T of(T a, T b) { return a < b || b != b ? b : a; } };

template <class F, class T> static __device__ inline T block_reduce(T v) {
  __shared__ T part[WARP];
  for (int step = WARP / 2; step > 0; step /= 2) v = F::of(v, __shfl_xor_sync(ALL_LANES, v, step));
  __syncthreads(); /* the readers of an earlier call */
  if (threadIdx.x % WARP == 0) part[threadIdx.x / WARP] = v;
  __syncthreads();
  T total = part[0];
  for (unsigned w = 1; w < blockDim.x / WARP; w++) total = F::of(total, part[w]);
  return total;
}
template <class T> static __device__ inline T block_sum(T v) { return block_reduce<add_up>(v); }

#endif
