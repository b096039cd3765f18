/* Two sums for each column of a matrix, over blocks of rows: what batch norm and layer norm need of their channels. A thread block takes WARP
 * columns of one block of rows, so that neighbouring threads read neighbouring memory. */
#ifndef TYCHO_KERNELS_COLUMNS_H
#define TYCHO_KERNELS_COLUMNS_H
#include "device.h"

enum { COLUMN_ROWS = 8, BLOCK_ROWS = 256 }; /* rows that are read at a time, and those of a block */

static inline int64_t row_blocks(ty_matrix m) { return divide_up(m.rows, BLOCK_ROWS); }
static inline dim3 column_grid(ty_matrix m) { return dim3((unsigned)row_blocks(m), (unsigned)divide_up(m.columns, WARP)); }
static inline dim3 column_block(void) { return dim3(WARP, COLUMN_ROWS); }

/* The pair (sum of f's first, sum of f's second) over this thread block's rows of column c, in all threads of the column. f(row, pair) adds. */
template <class F> static __device__ inline float2 sum_column(ty_matrix m, int64_t c, F f) {
  __shared__ float2 part[COLUMN_ROWS][WARP];
  float2 sum = make_float2(0, 0);
  int64_t start = (int64_t)blockIdx.x * BLOCK_ROWS, end = start + BLOCK_ROWS < m.rows ? start + BLOCK_ROWS : m.rows;
  for (int64_t r = start + threadIdx.y; r < end && c < m.columns; r += COLUMN_ROWS) f(r, &sum);
  __syncthreads(); /* the readers of an earlier call */
  part[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  sum = part[0][threadIdx.x];
  for (int i = 1; i < COLUMN_ROWS; i++) {
    sum.x += part[i][threadIdx.x].x;
    sum.y += part[i][threadIdx.x].y;
  }
  return sum;
}

#endif
