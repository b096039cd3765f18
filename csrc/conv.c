/* Two-dimensional convolution of channels-last images: checks, and the choice of a body.
 * The plain loops are the definition: the double library runs them, and the float bodies are tested against it.
 * No bias, groups or dilation. */
#include "accept.h"

static int exact;
int ty_set_exact(int on) {
  exact = on != 0;
  return 0;
}
int ty_exact(void) { return exact; }

#ifdef TYCHO_DOUBLE

static int forward(const conv_shape *s, real *y, const real *x, const real *w, int grad) {
  (void)grad;
#pragma omp parallel for collapse(2) if (conv_work(s) > PARALLEL_WORK)
  for (int64_t n = 0; n < s->n; n++)
    for (int64_t oh = 0; oh < s->oh; oh++)
      for (int64_t ow = 0; ow < s->ow && !ty_is_unwanted(); ow++)
        for (int64_t o = 0; o < s->out; o++) {
          real sum = 0;
          for (int64_t kh = 0; kh < s->kh; kh++)
            for (int64_t kw = 0; kw < s->kw; kw++) {
              int64_t ih = oh * s->stride - s->padding + kh, iw = ow * s->stride - s->padding + kw;
              if (ih < 0 || ih >= s->h || iw < 0 || iw >= s->w) continue;
              const real *a = x + ((n * s->h + ih) * s->w + iw) * s->in, *b = w + ((o * s->kh + kh) * s->kw + kw) * s->in;
              for (int64_t i = 0; i < s->in; i++) sum += a[i] * b[i];
            }
          y[((n * s->oh + oh) * s->ow + ow) * s->out + o] = sum;
        }
  return 0;
}

static int back_input(const conv_shape *s, real *dx, const real *dy, const real *w) {
#pragma omp parallel for if (conv_work(s) > PARALLEL_WORK)
  for (int64_t n = 0; n < s->n; n++) {
    memset(dx + n * s->h * s->w * s->in, 0, (size_t)(s->h * s->w * s->in) * sizeof *dx);
    for (int64_t oh = 0; oh < s->oh; oh++)
      for (int64_t ow = 0; ow < s->ow && !ty_is_unwanted(); ow++)
        for (int64_t o = 0; o < s->out; o++) {
          real d = dy[((n * s->oh + oh) * s->ow + ow) * s->out + o];
          for (int64_t kh = 0; kh < s->kh; kh++)
            for (int64_t kw = 0; kw < s->kw; kw++) {
              int64_t ih = oh * s->stride - s->padding + kh, iw = ow * s->stride - s->padding + kw;
              if (ih < 0 || ih >= s->h || iw < 0 || iw >= s->w) continue;
              real *a = dx + ((n * s->h + ih) * s->w + iw) * s->in;
              const real *b = w + ((o * s->kh + kh) * s->kw + kw) * s->in;
              for (int64_t i = 0; i < s->in; i++) a[i] += d * b[i];
            }
        }
  }
  return 0;
}

static int back_weight(const conv_shape *s, real *dw, const real *dy, const real *x) {
#pragma omp parallel for if (conv_work(s) > PARALLEL_WORK)
  for (int64_t o = 0; o < s->out; o++) {
    memset(dw + o * s->kh * s->kw * s->in, 0, (size_t)(s->kh * s->kw * s->in) * sizeof *dw);
    for (int64_t n = 0; n < s->n; n++)
      for (int64_t oh = 0; oh < s->oh; oh++)
        for (int64_t ow = 0; ow < s->ow && !ty_is_unwanted(); ow++) {
          real d = dy[((n * s->oh + oh) * s->ow + ow) * s->out + o];
          for (int64_t kh = 0; kh < s->kh; kh++)
            for (int64_t kw = 0; kw < s->kw; kw++) {
              int64_t ih = oh * s->stride - s->padding + kh, iw = ow * s->stride - s->padding + kw;
              if (ih < 0 || ih >= s->h || iw < 0 || iw >= s->w) continue;
              const real *a = x + ((n * s->h + ih) * s->w + iw) * s->in;
              real *b = dw + ((o * s->kh + kh) * s->kw + kw) * s->in;
              for (int64_t i = 0; i < s->in; i++) b[i] += d * a[i];
            }
        }
  }
  return 0;
}

#else

/* Tiles of 4x2 round no more than direct summation, tiles of 4x4 two to three times as much. A forward pass with a gradient takes the exact
 * kind: its error decides which ReLUs are open, and one that flips changes a gradient by far more than its own rounding. Backward errors only
 * scale the gradients. */
static int forward(const conv_shape *s, float *y, const float *x, const float *w, int grad) {
  int columns = ty_winograd_columns(s, exact || grad ? 2 : 4);
  return columns ? ty_winograd_forward(s, columns, y, x, w) : ty_direct_forward(s, y, x, w);
}
static int back_input(const conv_shape *s, float *dx, const float *dy, const float *w) {
  int columns = ty_winograd_columns(s, exact ? 2 : 4);
  return columns ? ty_winograd_back_input(s, columns, dx, dy, w) : ty_direct_back_input(s, dx, dy, w);
}
static int back_weight(const conv_shape *s, float *dw, const float *dy, const float *x) {
  int columns = ty_winograd_columns(s, exact ? 2 : 4);
  return columns ? ty_winograd_back_weight(s, columns, dw, dy, x) : ty_direct_back_weight(s, dw, dy, x);
}

#endif

int ty_conv2d(ty_tensor *y, const ty_tensor *x, const ty_tensor *w, int stride, int padding, int grad) {
  conv_shape s;
  TY_TRY(ty_accept_conv(&s, "conv2d", "x", x, "w", w, "y", y, stride, padding));
  return forward(&s, y->data, x->data, w->data, grad);
}

int ty_conv2d_back_input(ty_tensor *dx, const ty_tensor *dy, const ty_tensor *w, int stride, int padding) {
  conv_shape s;
  TY_TRY(ty_accept_conv(&s, "conv2d_back_input", "dx", dx, "w", w, "dy", dy, stride, padding));
  return back_input(&s, dx->data, dy->data, w->data);
}

int ty_conv2d_back_weight(ty_tensor *dw, const ty_tensor *dy, const ty_tensor *x, int stride, int padding) {
  conv_shape s;
  TY_TRY(ty_accept_conv(&s, "conv2d_back_weight", "x", x, "dw", dw, "dy", dy, stride, padding));
  return back_weight(&s, dw->data, dy->data, x->data);
}
