/* What the convolution files share: the geometry of one convolution and its fast float bodies. */
#ifndef TYCHO_CONV_H
#define TYCHO_CONV_H
#include "internal.h"

/* Multiply-adds below which one thread is faster. */
enum { PARALLEL_WORK = 1 << 18 };

/* x (n, in, h, w), y (n, out, oh, ow), weights (out, in, kh, kw); all channels-last. */
typedef struct {
  int64_t n, in, h, w, out, oh, ow, kh, kw, stride, padding;
} conv_shape;

static inline int64_t conv_work(const conv_shape *s) { return s->n * s->oh * s->ow * s->out * s->kh * s->kw * s->in; }

/* For loops of phases whose threads must end alike: seen in one phase, told to all by the barrier behind it, read before the next phase ends. */
static inline int ty_end_phase(int *ended) {
  if (!ty_is_unwanted()) return 0;
#pragma omp atomic write
  *ended = 1;
  return 1;
}

/* conv_direct.c. The weights of outputs 16p..16p+15 to packed[p][kh][kw][in][16], missing outputs zero. */
void ty_pack_weights(const conv_shape *s, float *packed, const float *w, int64_t p);
/* Each fails only when there is no memory for its scratch. */
int ty_direct_forward(const conv_shape *s, float *y, const float *x, const float *w);
int ty_direct_back_input(const conv_shape *s, float *dx, const float *dy, const float *w);
int ty_direct_back_weight(const conv_shape *s, float *dw, const float *dy, const float *x);

/* winograd.c: the same for some 3x3 convolutions of stride 1, by tiles of 4 x columns outputs. */
int ty_winograd_columns(const conv_shape *s, int most); /* the fastest columns of 2 or 4, at most `most`; 0 when direct convolution is faster */
int ty_winograd_forward(const conv_shape *s, int columns, float *y, const float *x, const float *w);
int ty_winograd_back_input(const conv_shape *s, int columns, float *dx, const float *dy, const float *w);
int ty_winograd_back_weight(const conv_shape *s, int columns, float *dw, const float *dy, const float *x);

#endif
