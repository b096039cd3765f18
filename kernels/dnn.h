/* Convolutions of channels-last images, which are left to a library: cuDNN (dnn.cu), or the CPU library's bodies in the host build
 * (host/dnn.cpp). */
#ifndef TYCHO_KERNELS_DNN_H
#define TYCHO_KERNELS_DNN_H
#include "device.h"

int dnn_accept_version(void); /* needs no device */
int dnn_open(void);
const char *dnn_text(void); /* name and version */

enum dnn_direction { FORWARD, BACK_INPUT, BACK_WEIGHT };

/* All tensors of one float dtype; sums are float32. */
int dnn_forward(const conv_shape *s, int dtype, void *y, const void *x, const void *w);
int dnn_back_input(const conv_shape *s, int dtype, void *dx, const void *dy, const void *w);
int dnn_back_weight(const conv_shape *s, int dtype, void *dw, const void *dy, const void *x);
/* What ty_use_conv_engine does; x or dx, w or dw, y or dy. */
int dnn_use_engine(int direction, const conv_shape *s, int dtype, const void *x, const void *w, const void *y, int engine, int64_t *workspace);

#endif
