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

/* Weight gradients of many pixels are sums of parts of the batch, each one core's own: what cores write for each other costs more than all else
 * where they share no cache. How many parts, 0 for none: `values` are multiplied together for `weights` weights, and can be cut in `most`. The
 * shapes alone decide. */
enum { MIN_PARTS = 4, MAX_PARTS = 16 };
static inline int64_t parts_of(int64_t values, int64_t weights, int64_t most) {
  int64_t parts = MAX_PARTS;
  while (parts >= MIN_PARTS && (parts > most || parts * weights > values)) parts /= 2; /* each reads more than it writes */
  return parts < MIN_PARTS ? 0 : parts;
}

/* conv_direct.c. The weights of outputs 16p..16p+15 as to[kh][kw][in][16], missing outputs zero. */
void ty_pack_weights(const conv_shape *s, float *to, const float *w, int64_t p);
/* Each fails only when there is no memory for its scratch. */
int ty_direct_forward(const conv_shape *s, float *y, const float *x, const float *w);
int ty_direct_back_input(const conv_shape *s, float *dx, const float *dy, const float *w);

/* conv_weights.c. dw[i] = sum of sums[part][i] in order, by the threads of the enclosing parallel region. */
void ty_add_parts(float *dw, const float *sums, int64_t parts, int64_t size);
int ty_direct_back_weight(const conv_shape *s, float *dw, const float *dy, const float *x); /* as above */

/* winograd.c: the same for some 3x3 convolutions of stride 1, by tiles of 4 x columns outputs. */
int ty_winograd_columns(const conv_shape *s, int most); /* the fastest columns of 2 or 4, at most `most`; 0 when direct convolution is faster */
int ty_winograd_forward(const conv_shape *s, int columns, float *y, const float *x, const float *w);
int ty_winograd_back_input(const conv_shape *s, int columns, float *dx, const float *dy, const float *w);
int ty_winograd_back_weight(const conv_shape *s, int columns, float *dw, const float *dy, const float *x); /* winograd_weights.c */

#endif
