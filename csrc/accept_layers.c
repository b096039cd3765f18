/* What convolutions, norms, pooling, attention and images accept. */
#include "accept.h"
#include <limits.h>

/* ---- convolution ---- */

int ty_accept_conv(conv_shape *s, const char *op, const char *x_name, const ty_tensor *x, const char *w_name, const ty_tensor *w,
                        const char *y_name, const ty_tensor *y, int stride, int padding) {
  TY_TRY(ty_check_image(op, y_name, y));
  TY_TRY(ty_check_image(op, x_name, x));
  TY_TRY(ty_check_image(op, w_name, w));
  TY_TRY(ty_check_type(op, w_name, w, x->dtype));
  TY_TRY(ty_check_type(op, y_name, y, x->dtype));
  if (stride < 1 || padding < 0) return ty_fail("%s: stride must be at least 1 and padding at least 0, got %d and %d", op, stride, padding);
  *s = (conv_shape){.n = x->shape[0], .in = x->shape[1], .h = x->shape[2], .w = x->shape[3], .out = w->shape[0],
                    .kh = w->shape[2], .kw = w->shape[3], .stride = stride, .padding = padding};
  if (w->shape[1] != s->in)
    return ty_fail("%s: %s of shape %s takes %lld channels, %s has shape %s", op, w_name, ty_shape_text(w), (long long)w->shape[1], x_name,
                   ty_shape_text(x));
  int64_t slack_h = s->h + 2 * s->padding - s->kh, slack_w = s->w + 2 * s->padding - s->kw;
  if (s->kh < 1 || s->kw < 1 || slack_h < 0 || slack_w < 0)
    return ty_fail("%s: a kernel of %lldx%lld does not fit into %s of shape %s with padding %d", op, (long long)s->kh, (long long)s->kw,
                   x_name, ty_shape_text(x), padding);
  s->oh = slack_h / stride + 1;
  s->ow = slack_w / stride + 1;
  if (y->shape[0] != s->n || y->shape[1] != s->out || y->shape[2] != s->oh || y->shape[3] != s->ow)
    return ty_fail("%s: %s must have shape (%lld, %lld, %lld, %lld), got %s", op, y_name, (long long)s->n, (long long)s->out,
                   (long long)s->oh, (long long)s->ow, ty_shape_text(y));
  return 0;
}

/* ---- norms ---- */

static int check_rows(const char *op, const char *name, const ty_tensor *t) {
  TY_TRY(ty_check_float(op, name, t));
  return t->ndim == 2 ? ty_check_dense(op, name, t, t->dtype, 2) : ty_check_image(op, name, t);
}
static int check_like_x(const char *op, const char *name, const ty_tensor *t, const ty_tensor *x) {
  TY_TRY(check_rows(op, name, t));
  TY_TRY(ty_check_type(op, name, t, x->dtype));
  if (ty_same_shape(t, x)) return 0;
  return ty_fail("%s: %s must have x's shape %s, got %s", op, name, ty_shape_text(x), ty_shape_text(t));
}
static int check_vector(const char *op, const char *name, const ty_tensor *t, int64_t size) {
  TY_TRY(ty_check_dense(op, name, t, TY_REAL, 1));
  return ty_check_size(op, name, t, 0, size);
}

/* x as rows of channels, and its statistics. */
static int check_statistics(const char *op, ty_matrix *m, const ty_tensor *x, const ty_tensor *mean, const ty_tensor *rstd) {
  TY_TRY(check_rows(op, "x", x));
  int64_t channels = x->shape[1];
  *m = (ty_matrix){channels ? ty_numel(x) / channels : 0, channels};
  TY_TRY(check_vector(op, "mean", mean, channels));
  return check_vector(op, "rstd", rstd, channels);
}
static int check_normalized(const char *op, ty_matrix *m, const ty_tensor *x, const ty_tensor *mean, const ty_tensor *rstd, const ty_tensor *weight,
                            const ty_tensor *bias) {
  TY_TRY(check_statistics(op, m, x, mean, rstd));
  TY_TRY(check_vector(op, "weight", weight, m->columns));
  return check_vector(op, "bias", bias, m->columns);
}

int ty_accept_statistics(ty_matrix *m, const ty_tensor *mean, const ty_tensor *rstd, const ty_tensor *running_mean, const ty_tensor *running_var,
                         const ty_tensor *x) {
  const char *op = "batch_norm";
  TY_TRY(check_statistics(op, m, x, mean, rstd));
  if (running_mean) TY_TRY(check_vector(op, "running_mean", running_mean, m->columns));
  if (running_var) TY_TRY(check_vector(op, "running_var", running_var, m->columns));
  if (m->rows == 1) return ty_fail("%s: training needs more than one value per channel, got x of shape %s", op, ty_shape_text(x));
  return 0;
}

int ty_accept_rstd(const ty_tensor *rstd, const ty_tensor *var) {
  const char *op = "batch_norm";
  TY_TRY(ty_check_dense(op, "rstd", rstd, TY_REAL, 1));
  return check_vector(op, "running_var", var, rstd->shape[0]);
}

int ty_accept_batch_norm(ty_matrix *m, const ty_tensor *y, const ty_tensor *x, const ty_tensor *mean, const ty_tensor *rstd,
                         const ty_tensor *weight, const ty_tensor *bias, const ty_tensor *residual) {
  const char *op = "batch_norm";
  TY_TRY(check_normalized(op, m, x, mean, rstd, weight, bias));
  TY_TRY(check_like_x(op, "y", y, x));
  return residual ? check_like_x(op, "residual", residual, x) : 0;
}

int ty_accept_batch_norm_pool(const ty_tensor *y, const ty_tensor *index, const ty_tensor *x, const ty_tensor *mean, const ty_tensor *rstd,
                              const ty_tensor *weight, const ty_tensor *bias, int kernel, int stride, int padding) {
  const char *op = "batch_norm";
  ty_matrix m;
  TY_TRY(ty_accept_window(op, "y", y, index, "x", x, kernel, stride, padding));
  return check_normalized(op, &m, x, mean, rstd, weight, bias);
}

static int check_gradients(const char *op, const ty_tensor *dx, const ty_tensor *dweight, const ty_tensor *dbias, const ty_tensor *x) {
  TY_TRY(check_like_x(op, "dx", dx, x));
  TY_TRY(check_vector(op, "dweight", dweight, x->shape[1]));
  return check_vector(op, "dbias", dbias, x->shape[1]);
}

int ty_accept_batch_norm_back(ty_matrix *m, const ty_tensor *dx, const ty_tensor *dweight, const ty_tensor *dbias, const ty_tensor *dresidual,
                              const ty_tensor *dy, const ty_tensor *more, const ty_tensor *x, const ty_tensor *y, const ty_tensor *weight,
                              const ty_tensor *bias, const ty_tensor *mean, const ty_tensor *rstd) {
  const char *op = "batch_norm_back";
  TY_TRY(check_normalized(op, m, x, mean, rstd, weight, bias));
  TY_TRY(check_gradients(op, dx, dweight, dbias, x));
  TY_TRY(check_like_x(op, "dy", dy, x));
  if (more) TY_TRY(check_like_x(op, "more", more, x));
  if (y) TY_TRY(check_like_x(op, "y", y, x));
  if (dresidual) TY_TRY(check_like_x(op, "dresidual", dresidual, x));
  return dresidual && !y ? ty_fail("%s: with a residual the result y is needed", op) : 0;
}

int ty_accept_batch_norm_pool_back(ty_matrix *m, const ty_tensor *dx, const ty_tensor *dweight, const ty_tensor *dbias, const ty_tensor *dy,
                                   const ty_tensor *index, const ty_tensor *x, const ty_tensor *weight, const ty_tensor *bias,
                                   const ty_tensor *mean, const ty_tensor *rstd, int kernel, int stride, int padding) {
  const char *op = "batch_norm_back";
  TY_TRY(ty_accept_window(op, "dy", dy, index, "x", x, kernel, stride, padding));
  TY_TRY(check_normalized(op, m, x, mean, rstd, weight, bias));
  return check_gradients(op, dx, dweight, dbias, x);
}

static int check_layer(const char *op, ty_matrix *m, const ty_tensor *x, const ty_tensor *weight, const ty_tensor *mean,
                       const ty_tensor *rstd) {
  TY_TRY(ty_check_dense(op, "x", x, TY_REAL, -1));
  if (x->ndim < 1 || x->shape[x->ndim - 1] < 1)
    return ty_fail("%s: x must have a last dim of at least one value, got shape %s", op, ty_shape_text(x));
  *m = ty_matrix_of(x);
  TY_TRY(check_vector(op, "weight", weight, m->columns));
  TY_TRY(check_vector(op, "mean", mean, m->rows));
  return check_vector(op, "rstd", rstd, m->rows);
}

int ty_accept_layer_norm(ty_matrix *m, const ty_tensor *y, const ty_tensor *mean, const ty_tensor *rstd, const ty_tensor *x,
                         const ty_tensor *weight, const ty_tensor *bias) {
  const char *op = "layer_norm";
  TY_TRY(check_layer(op, m, x, weight, mean, rstd));
  TY_TRY(ty_check_dense(op, "y", y, TY_REAL, -1));
  if (!ty_same_shape(y, x)) return ty_fail("%s: y must have x's shape %s, got %s", op, ty_shape_text(x), ty_shape_text(y));
  return check_vector(op, "bias", bias, m->columns);
}

int ty_accept_layer_norm_back(ty_matrix *m, const ty_tensor *dx, const ty_tensor *dweight, const ty_tensor *dbias, const ty_tensor *dy,
                              const ty_tensor *x, const ty_tensor *weight, const ty_tensor *mean, const ty_tensor *rstd) {
  const char *op = "layer_norm_back";
  TY_TRY(check_layer(op, m, x, weight, mean, rstd));
  TY_TRY(ty_check_dense(op, "dx", dx, TY_REAL, -1));
  TY_TRY(ty_check_dense(op, "dy", dy, TY_REAL, -1));
  if (!ty_same_shape(dx, x) || !ty_same_shape(dy, x))
    return ty_fail("%s: dx and dy must have x's shape %s, got %s and %s", op, ty_shape_text(x), ty_shape_text(dx), ty_shape_text(dy));
  TY_TRY(check_vector(op, "dweight", dweight, m->columns));
  return check_vector(op, "dbias", dbias, m->columns);
}

/* ---- pooling ---- */

int ty_accept_window(const char *op, const char *y_name, const ty_tensor *y, const ty_tensor *index, const char *x_name,
                        const ty_tensor *x, int kernel, int stride, int padding) {
  TY_TRY(ty_check_image(op, y_name, y));
  TY_TRY(ty_check_image(op, x_name, x));
  TY_TRY(ty_check_type(op, y_name, y, x->dtype));
  TY_TRY(ty_check_device(op, "index", index));
  if (index->dtype != TY_U8 || !ty_is_image(index) || !ty_same_shape(index, y))
    return ty_fail("%s: index must be uint8 and channels-last of %s's shape %s, got %s %s", op, y_name, ty_shape_text(y),
                   ty_dtype_name(index->dtype), ty_shape_text(index));
  if (kernel < 1 || kernel > 16 || stride < 1 || padding < 0 || 2 * padding > kernel)
    return ty_fail("%s: expected a kernel of 1 to 16, a stride of at least 1 and a padding of at most half the kernel, got %d, %d and %d",
                   op, kernel, stride, padding);
  int64_t slack_h = x->shape[2] + 2 * padding - kernel, slack_w = x->shape[3] + 2 * padding - kernel;
  if (slack_h < 0 || slack_w < 0 || x->shape[2] < 1 || x->shape[3] < 1)
    return ty_fail("%s: a kernel of %dx%d does not fit into %s of shape %s with padding %d", op, kernel, kernel, x_name,
                   ty_shape_text(x), padding);
  if (x->shape[1] * x->shape[2] * x->shape[3] > INT_MAX)
    return ty_fail("%s: an image may have 2^31 - 1 elements, got %s of shape %s", op, x_name, ty_shape_text(x));
  int64_t oh = slack_h / stride + 1, ow = slack_w / stride + 1;
  if (y->shape[0] != x->shape[0] || y->shape[1] != x->shape[1] || y->shape[2] != oh || y->shape[3] != ow)
    return ty_fail("%s: %s must have shape (%lld, %lld, %lld, %lld), got %s", op, y_name, (long long)x->shape[0], (long long)x->shape[1],
                   (long long)oh, (long long)ow, ty_shape_text(y));
  return 0;
}

int ty_accept_average(const char *op, const char *y_name, const ty_tensor *y, const char *x_name, const ty_tensor *x) {
  TY_TRY(ty_check_image(op, x_name, x));
  TY_TRY(ty_check_dense(op, y_name, y, x->dtype, 2));
  if (x->shape[2] * x->shape[3] < 1) return ty_fail("%s: %s must have at least one pixel, got shape %s", op, x_name, ty_shape_text(x));
  TY_TRY(ty_check_size(op, y_name, y, 0, x->shape[0]));
  return ty_check_size(op, y_name, y, 1, x->shape[1]);
}

/* ---- attention ---- */

/* A tensor of a dtype (B,H,length,D), or (H,length,D) when B is -1, whose rows BLAS can address; length -1: any. */
static int check_heads(const char *op, const char *arg, const ty_tensor *t, int dtype, int64_t B, int64_t H, int64_t length, int64_t D) {
  TY_TRY(ty_check_type(op, arg, t, dtype));
  int n = B < 0 ? 3 : 4;
  int fits = t->ndim == n && (n == 3 || t->shape[0] == B) && t->shape[n - 3] == H && t->shape[n - 1] == D;
  if (!fits || (length >= 0 && t->shape[n - 2] != length)) {
    ty_tensor expected = {.ndim = n, .shape = {B, H, length, D}};
    if (n == 3) expected = (ty_tensor){.ndim = 3, .shape = {H, length, D}};
    return ty_fail("%s: %s must be %s%s, got %s", op, arg, ty_shape_text(&expected), length < 0 ? " (-1: any length)" : "",
                   ty_shape_text(t));
  }
  if (D > 1 && t->stride[n - 1] != 1) return ty_fail("%s: the last dim of %s must have stride 1", op, arg);
  if (t->shape[n - 2] > 1 && (t->stride[n - 2] < D || t->stride[n - 2] > INT_MAX))
    return ty_fail("%s: rows of %s share memory or are too far apart (expanded tensor?): make it contiguous", op, arg);
  return 0;
}

int ty_accept_attention(ty_heads *s, const ty_tensor *y, const ty_tensor *p, const ty_tensor *q, const ty_tensor *k, const ty_tensor *v,
                        const ty_tensor *mask, const ty_tensor *memory_k, const ty_tensor *memory_v) {
  const char *op = "attention";
  if (q->ndim != 4 || k->ndim != 4)
    return ty_fail("%s: q and k must be (B, H, T, D), got %s and %s", op, ty_shape_text(q), ty_shape_text(k));
  TY_TRY(ty_check_float(op, "q", q));
  int64_t B = q->shape[0], H = q->shape[1], T = q->shape[2], D = q->shape[3], S = k->shape[2];
  TY_TRY(check_heads(op, "q", q, q->dtype, B, H, T, D));
  TY_TRY(check_heads(op, "k", k, q->dtype, B, H, S, D));
  TY_TRY(check_heads(op, "v", v, q->dtype, B, H, S, D));
  TY_TRY(check_heads(op, "y", y, q->dtype, B, H, T, D));
  if (mask) {
    TY_TRY(ty_check_dense(op, "mask", mask, TY_U8, 2));
    if (mask->shape[0] != T || mask->shape[1] != S)
      return ty_fail("%s: mask must be (%lld, %lld), got %s", op, (long long)T, (long long)S, ty_shape_text(mask));
  }
  int64_t M = 0;
  if (memory_k || memory_v) {
    if (!memory_k || !memory_v) return ty_fail("%s: memory needs both keys and values", op);
    TY_TRY(check_heads(op, "memory_k", memory_k, q->dtype, -1, H, -1, D));
    M = memory_k->shape[1];
    TY_TRY(check_heads(op, "memory_v", memory_v, q->dtype, -1, H, M, D));
  }
  int64_t columns = M + S;
  TY_TRY(ty_check_dense(op, "p", p, q->dtype, 4));
  if (p->shape[0] != B || p->shape[1] != H || p->shape[2] != T || p->shape[3] != columns)
    return ty_fail("%s: p must be (%lld, %lld, %lld, %lld), got %s", op, (long long)B, (long long)H, (long long)T, (long long)columns,
                   ty_shape_text(p));
  if (columns == 0) return ty_fail("%s: there are no keys to attend to", op);
  *s = (ty_heads){B, H, T, S, M, D};
  return 0;
}

int ty_accept_attention_back(ty_heads *s, const ty_tensor *dq, const ty_tensor *dk, const ty_tensor *dv, const ty_tensor *dy,
                             const ty_tensor *p, const ty_tensor *q, const ty_tensor *k, const ty_tensor *v) {
  const char *op = "attention backward";
  if (q->ndim != 4 || k->ndim != 4)
    return ty_fail("%s: q and k must be (B, H, T, D), got %s and %s", op, ty_shape_text(q), ty_shape_text(k));
  TY_TRY(ty_check_float(op, "q", q));
  int64_t B = q->shape[0], H = q->shape[1], T = q->shape[2], D = q->shape[3], S = k->shape[2];
  const ty_tensor *const like_q[] = {q, dq, dy}, *const like_k[] = {k, v, dk, dv};
  const char *const q_names[] = {"q", "dq", "dy"}, *const k_names[] = {"k", "v", "dk", "dv"};
  for (int i = 0; i < 3; i++) TY_TRY(check_heads(op, q_names[i], like_q[i], q->dtype, B, H, T, D));
  for (int i = 0; i < 4; i++) TY_TRY(check_heads(op, k_names[i], like_k[i], q->dtype, B, H, S, D));
  TY_TRY(ty_check_dense(op, "p", p, q->dtype, 4));
  if (p->shape[0] != B || p->shape[1] != H || p->shape[2] != T || p->shape[3] != S)
    return ty_fail("%s: p %s does not fit q %s and k %s; memory has no gradient", op, ty_shape_text(p), ty_shape_text(q), ty_shape_text(k));
  if (S == 0) return ty_fail("%s: there are no keys to attend to", op);
  *s = (ty_heads){B, H, T, S, 0, D};
  return 0;
}

/* ---- images ---- */

int ty_accept_normalize_images(const ty_tensor *y, const ty_tensor *x, const ty_tensor *index) {
  const char *op = "normalize_images";
  TY_TRY(ty_check_dense(op, "x", x, TY_U8, 4));
  TY_TRY(ty_check_size(op, "x", x, 3, 3));
  TY_TRY(ty_check_float(op, "y", y));
  TY_TRY(ty_check_image(op, "y", y));
  if (index) TY_TRY(ty_check_dense(op, "index", index, TY_I64, 1));
  int64_t m = index ? index->shape[0] : x->shape[0];
  const int64_t expected[4] = {m, 3, x->shape[1], x->shape[2]};
  for (int d = 0; d < 4; d++) TY_TRY(ty_check_size(op, "y", y, d, expected[d]));
  return 0;
}
