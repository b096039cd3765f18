/* Convolution: checks here, the work is the library's behind dnn.h. */
#include "dnn.h"

int ty_conv2d(ty_tensor *y, const ty_tensor *x, const ty_tensor *w, int stride, int padding, int) {
  conv_shape s;
  TY_TRY(ty_accept_conv(&s, "conv2d", "x", x, "w", w, "y", y, stride, padding));
  return ty_numel(y) ? dnn_forward(&s, x->dtype, y->data, x->data, w->data) : 0;
}

int ty_conv2d_back_input(ty_tensor *dx, const ty_tensor *dy, const ty_tensor *w, int stride, int padding) {
  conv_shape s;
  TY_TRY(ty_accept_conv(&s, "conv2d_back_input", "dx", dx, "w", w, "dy", dy, stride, padding));
  if (!ty_numel(dy)) return ty_fill(dx, 0);
  return dnn_back_input(&s, dx->dtype, dx->data, dy->data, w->data);
}

int ty_conv2d_back_weight(ty_tensor *dw, const ty_tensor *dy, const ty_tensor *x, int stride, int padding) {
  conv_shape s;
  TY_TRY(ty_accept_conv(&s, "conv2d_back_weight", "x", x, "dw", dw, "dy", dy, stride, padding));
  if (!ty_numel(dy)) return ty_fill(dw, 0);
  return dnn_back_weight(&s, dw->dtype, dw->data, dy->data, x->data);
}

int ty_use_conv_engine(int direction, const ty_tensor *y, const ty_tensor *x, const ty_tensor *w, int stride, int padding, int engine,
                       int64_t *workspace) {
  conv_shape s;
  TY_TRY(ty_accept_conv(&s, "use_conv_engine", "x", x, "w", w, "y", y, stride, padding));
  return dnn_use_engine(direction, &s, x->dtype, x->data, w->data, y->data, engine, workspace);
}
