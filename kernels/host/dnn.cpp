/* The host build's convolutions are the CPU library's, over float32 copies of what is not float32. */
#include "widen.h"
#include "../dnn.h"
#include <stdlib.h>

/* What the CPU's convolutions call for memory. */
extern "C" void *host_alloc(int64_t bytes) { return aligned_alloc(64, (size_t)divide_up(bytes, 64) * 64); }
extern "C" void host_free(void *block, int64_t) { free(block); }

int dnn_accept_version(void) { return 0; }
int dnn_open(void) { return 0; }
const char *dnn_text(void) { return "the CPU's convolutions"; }

static int64_t x_size(const conv_shape *s) { return s->n * s->in * s->h * s->w; }
static int64_t w_size(const conv_shape *s) { return s->out * s->in * s->kh * s->kw; }
static int64_t y_size(const conv_shape *s) { return s->n * s->out * s->oh * s->ow; }

int dnn_forward(const conv_shape *s, int dtype, void *y, const void *x, const void *w) {
  return call_library("conv2d", [=, shape = *s] {
    return narrowed(dtype, y, y_size(&shape), [&](float *to) {
      return ty_direct_forward(&shape, to, widened(dtype, x, x_size(&shape)).data(), widened(dtype, w, w_size(&shape)).data());
    });
  });
}
int dnn_back_input(const conv_shape *s, int dtype, void *dx, const void *dy, const void *w) {
  return call_library("conv2d", [=, shape = *s] {
    return narrowed(dtype, dx, x_size(&shape), [&](float *to) {
      return ty_direct_back_input(&shape, to, widened(dtype, dy, y_size(&shape)).data(), widened(dtype, w, w_size(&shape)).data());
    });
  });
}
int dnn_back_weight(const conv_shape *s, int dtype, void *dw, const void *dy, const void *x) {
  return call_library("conv2d", [=, shape = *s] {
    return narrowed(dtype, dw, w_size(&shape), [&](float *to) {
      return ty_direct_back_weight(&shape, to, widened(dtype, dy, y_size(&shape)).data(), widened(dtype, x, x_size(&shape)).data());
    });
  });
}

int dnn_use_engine(int, const conv_shape *, int, const void *, const void *, const void *, int engine, int64_t *workspace) {
  *workspace = engine == 0 ? 0 : -1;
  return 0;
}
