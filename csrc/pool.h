/* Windows of max pooling over channels-last images, for pooling itself and for a batch norm whose result is only pooled. */
#ifndef TYCHO_POOL_H
#define TYCHO_POOL_H
#include "internal.h"

/* n images (h,w,c) are pooled to (oh,ow,c). */
typedef struct ty_windows { int64_t n, c, h, w, oh, ow, kernel, stride, padding; } ty_windows;
static inline ty_windows ty_windows_of(const ty_tensor *x, const ty_tensor *y, int kernel, int stride, int padding) {
  return (ty_windows){x->shape[0], x->shape[1], x->shape[2], x->shape[3], y->shape[2], y->shape[3], kernel, stride, padding};
}

/* The rows of its image that row r of all pooled rows sees: first to end - 1. */
typedef struct ty_band { int64_t first, end; } ty_band;
ty_band ty_pool_band(const ty_windows *s, int64_t r);
/* Row r of all pooled rows, y and index, from the rows of its band: the first maximum of each window; NaN wins, as in PyTorch. */
void ty_pool_row(const ty_windows *s, int64_t r, real *y, uint8_t *index, const real *band);
/* dx of `count` pixels from pixel `first` of all on: a pixel collects from the windows that it won. */
void ty_pool_back(const ty_windows *s, real *dx, const real *dy, const uint8_t *index, int64_t first, int64_t count);

#endif
