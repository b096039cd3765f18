/* Images and matrices as rows of channels, for what is the same in each row or is summed over them. A thread keeps to N neighbouring channels, whose
 * constants it holds in registers, and walks down the rows of its block; neighbouring threads read neighbouring memory. */
#ifndef TYCHO_KERNELS_ROWS_H
#define TYCHO_KERNELS_ROWS_H
#include "packet.h"

/* Rows that a thread reads before it works on the first, at most; how often it does at most; thread blocks that keep a device busy. */
enum { AHEAD = 4, MOST_TURNS = 8, MANY = 1024 };

struct rows { int64_t count, channels, block_rows, blocks; };

static inline dim3 rows_block(const rows &m, int n) {
  unsigned lanes = 1;
  while (lanes < WARP && (int64_t)lanes * n < m.channels) lanes *= 2;
  return dim3(lanes, THREADS / lanes);
}
static inline dim3 rows_grid(const rows &m, int n) {
  return dim3((unsigned)m.blocks, (unsigned)divide_up(m.channels, (int64_t)n * rows_block(m, n).x));
}
/* The division into blocks, by the shape and the size of a packet alone. */
static inline rows rows_of(ty_matrix m, int n) {
  rows r = {m.rows, m.columns, 0, 0};
  int64_t turn = AHEAD * rows_block(r, n).y;
  for (int turns = MOST_TURNS; turns >= 1 && r.blocks * rows_grid(r, n).y < MANY; turns /= 2) {
    r.block_rows = turns * turn;
    r.blocks = divide_up(r.count, r.block_rows);
  }
  return r;
}

/* This thread's first channel, and the rows that it walks down: first, first + blockDim.y, ... below end; none where there is no such channel. */
struct walk { int64_t channel, first, end; };
template <int N> static __device__ inline walk walk_of(const rows &m) {
  walk w;
  w.channel = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * N;
  w.first = (int64_t)blockIdx.x * m.block_rows + threadIdx.y;
  w.end = (int64_t)blockIdx.x * m.block_rows + m.block_rows;
  if (w.end > m.count) w.end = m.count;
  if (w.channel >= m.channels) w.end = 0;
  return w;
}

/* The first of a thread's channels, -1 for none. */
static __device__ inline int64_t channel_of(walk w) { return w.end ? w.channel : -1; }

/* How many rows a thread walks down that begins at this one. */
static __device__ inline real rows_from(int64_t first, int64_t end) {
  return first < end ? (real)(((unsigned)(end - first) + blockDim.y - 1) / blockDim.y) : 0;
}

/* work(i, read(i, row)) for the elements i at which this thread's packets begin, of which it reads some ahead. At the end a packet may be read again
 * instead of one that is not there. Rows within the block, and channels, are counted in 32 bits, which leaves registers to the packets. */
template <int SOME = AHEAD, class Read, class Work> static __device__ inline void for_rows(const rows &m, walk w, Read read, Work work) {
  const int64_t start = w.first * m.channels + w.channel;
  const int count = w.first < w.end ? (int)(w.end - w.first) : 0, step = (int)blockDim.y, channels = (int)m.channels;
  for (int r = 0; r < count; r += SOME * step) {
    decltype(read(start, start)) in[SOME];
#pragma unroll
    for (int k = 0; k < SOME; k++) {
      const int at = r + k * step < count ? r + k * step : r;
      in[k] = read(start + (int64_t)at * channels, w.first + at);
    }
#pragma unroll
    for (int k = 0; k < SOME; k++)
      if (r + k * step < count) work(start + (int64_t)(r + k * step) * channels, in[k]);
  }
}

/* N values of a vector of all channels, for this thread's. */
template <int N> static __device__ inline void take_channels(real *to, const real *vector, walk w) {
  for (int j = 0; j < N; j++) to[j] = w.end ? vector[w.channel + j] : 0;
}

/* ---- sums over the rows of a thread block ---- */

/* The pairs of all threads, in the block's shared memory; and the channel whose rows this thread joins, -1 for none. */
template <int N> struct pairs {
  float2 (*of)[THREADS];
  int64_t channel;
  __device__ float2 at(unsigned row) const { return of[threadIdx.y][row * blockDim.x + threadIdx.x]; }
};
template <int N> static __device__ inline pairs<N> share_pairs(const rows &m, const real *first, const real *second) {
  __shared__ float2 part[N][THREADS];
  for (int j = 0; j < N; j++) part[j][threadIdx.y * blockDim.x + threadIdx.x] = make_float2(first[j], second[j]);
  __syncthreads();
  int64_t channel = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * N + threadIdx.y;
  return {part, threadIdx.y < N && channel < m.channels ? channel : -1};
}

/* parts[block][channel] = the sums of both values over the block's threads, in order. */
template <int N> static __device__ inline void add_pairs(float2 *parts, const rows &m, const real *first, const real *second) {
  pairs<N> p = share_pairs<N>(m, first, second);
  if (p.channel < 0) return;
  float2 sum = p.at(0);
  for (unsigned i = 1; i < blockDim.y; i++) {
    sum.x += p.at(i).x;
    sum.y += p.at(i).y;
  }
  parts[blockIdx.x * m.channels + p.channel] = sum;
}

#endif
