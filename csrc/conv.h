/* What the convolution files share: the geometry of one convolution and its fast float bodies. */
#ifndef TYCHO_CONV_H
#define TYCHO_CONV_H
#include "internal.h"

/* x (n, in, h, w), y (n, out, oh, ow), weights (out, in, kh, kw); all channels-last. */
typedef struct {
  int64_t n, in, h, w, out, oh, ow, kh, kw, stride, padding;
} conv_shape;

/* conv_direct.c. Each fails only when there is no memory for its scratch. */
int ty_direct_forward(const conv_shape *s, float *y, const float *x, const float *w);
int ty_direct_back_input(const conv_shape *s, float *dx, const float *dy, const float *w);
int ty_direct_back_weight(const conv_shape *s, float *dw, const float *dy, const float *x);

#endif
