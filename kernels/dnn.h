/* Convolutions of channels-last images, which are left to a library: cuDNN (dnn.cu), or the CPU library's bodies in the host build
 * (host/dnn.cpp). */
#ifndef TYCHO_KERNELS_DNN_H
#define TYCHO_KERNELS_DNN_H
#include "device.h"

int dnn_accept_version(void); /* needs no device */
int dnn_open(void);
const char *dnn_text(void); /* name and version */

int dnn_forward(const conv_shape *s, float *y, const float *x, const float *w);
int dnn_back_input(const conv_shape *s, float *dx, const float *dy, const float *w);
int dnn_back_weight(const conv_shape *s, float *dw, const float *dy, const float *x);

#endif
