/* The host build's convolutions are the CPU library's. */
#include "../dnn.h"

int dnn_accept_version(void) { return 0; }
int dnn_open(void) { return 0; }
const char *dnn_text(void) { return "the CPU's convolutions"; }
int dnn_forward(const conv_shape *s, float *y, const float *x, const float *w) { return ty_direct_forward(s, y, x, w); }
int dnn_back_input(const conv_shape *s, float *dx, const float *dy, const float *w) { return ty_direct_back_input(s, dx, dy, w); }
int dnn_back_weight(const conv_shape *s, float *dw, const float *dy, const float *x) { return ty_direct_back_weight(s, dw, dy, x); }
