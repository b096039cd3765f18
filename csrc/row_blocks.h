/* Rows of values in blocks, for sums over rows: the size of a block depends on the shape alone, and blocks are joined in order, so the thread count
 * does not change a result. */
#ifndef TYCHO_ROW_BLOCKS_H
#define TYCHO_ROW_BLOCKS_H
#include "internal.h"

/* A block stays in the second-level cache between its two readings, and is short enough for plain sums. */
enum { BLOCK_ELEMENTS = 16384, MIN_BLOCK_ROWS = 16, MAX_BLOCK_ROWS = 512 };

static inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

/* x as rows of `channels` values, and its division into blocks. */
typedef struct { int64_t rows, channels, block_rows, blocks; } grid;
static inline grid grid_of(int64_t rows, int64_t channels) {
  grid g = {.rows = rows, .channels = channels};
  g.block_rows = min(MAX_BLOCK_ROWS, max(MIN_BLOCK_ROWS, BLOCK_ELEMENTS / max(1, channels)));
  g.blocks = (rows + g.block_rows - 1) / g.block_rows;
  return g;
}
static inline int64_t rows_in(const grid *g, int64_t block) { return min(g->block_rows, g->rows - block * g->block_rows); }

#endif
