/* What elementwise operations, copies, reductions, products, losses and optimisers accept. */
#include "accept.h"
#include <limits.h>

/* ---- elementwise ---- */

/* The output's shape must be the one that the inputs broadcast to, not merely one that they fit into. */
static int check_broadcast(const char *op, const ty_tensor *y, const ty_tensor *const *inputs, int count) {
  for (int i = 1; i <= y->ndim; i++) {
    int64_t size = y->shape[y->ndim - i];
    int found = size == 1;
    for (int k = 0; k < count; k++) found = found || (i <= inputs[k]->ndim && inputs[k]->shape[inputs[k]->ndim - i] == size);
    if (!found)
      return ty_fail("%s: the output has shape %s, but %s and %s do not broadcast to that", op, ty_shape_text(y),
                     ty_shape_text(inputs[0]), ty_shape_text(inputs[count - 1]));
  }
  return 0;
}

int ty_accept_map(const char *op, const ty_tensor *y, const ty_tensor *const *inputs, int count) {
  TY_TRY(ty_check_float(op, "the output", y));
  for (int i = 0; i < count; i++) TY_TRY(ty_check_float(op, "an input", inputs[i]));
  return check_broadcast(op, y, inputs, count);
}

/* ---- copies ---- */

static int known(int dtype) { return dtype >= TY_F32 && dtype <= TY_BF16; }

int ty_accept_copy(const ty_tensor *y, const ty_tensor *x) {
  if (!known(y->dtype) || !known(x->dtype)) return ty_fail("copy: unknown dtype, %d from %d", y->dtype, x->dtype);
  TY_TRY(ty_check_device("copy", "the source", x));
  return ty_check_device("copy", "the target", y);
}

/* ---- reductions ---- */

static void add_dim(ty_dims *g, int64_t size, int64_t stride, int64_t out) {
  g->total *= size;
  if (size == 1) return;
  int at = g->n++;
  for (; at > 0 && g->stride[at - 1] < stride; at--) {
    g->shape[at] = g->shape[at - 1];
    g->stride[at] = g->stride[at - 1];
    g->out[at] = g->out[at - 1];
  }
  g->shape[at] = size;
  g->stride[at] = stride;
  g->out[at] = out;
}
static void merge(ty_dims *g) {
  int last = 0;
  for (int i = 1; i < g->n; i++) {
    if (g->stride[last] == g->shape[i] * g->stride[i] && g->out[last] == g->shape[i] * g->out[i]) g->shape[last] *= g->shape[i];
    else g->shape[++last] = g->shape[i];
    g->stride[last] = g->stride[i];
    g->out[last] = g->out[i];
  }
  if (g->n) g->n = last + 1;
}

int ty_accept_sum(ty_dims *kept, ty_dims *reduced, const ty_tensor *y, const ty_tensor *x) {
  TY_TRY(ty_check_float("sum", "x", x));
  TY_TRY(ty_check_real("sum", "y", y));
  if (y->ndim != x->ndim) return ty_fail("sum: y %s must have as many dims as x %s", ty_shape_text(y), ty_shape_text(x));
  kept->n = reduced->n = 0;
  kept->total = reduced->total = 1;
  for (int i = 0; i < x->ndim; i++) {
    int gone = y->shape[i] == 1 && x->shape[i] != 1;
    if (!gone && y->shape[i] != x->shape[i]) return ty_fail("sum: y %s does not reduce x %s", ty_shape_text(y), ty_shape_text(x));
    add_dim(gone ? reduced : kept, x->shape[i], x->stride[i], gone ? 0 : y->stride[i]);
  }
  merge(kept);
  merge(reduced);
  return 0;
}

static int check_like(const char *op, const char *arg, const ty_tensor *t, const ty_tensor *model) {
  TY_TRY(ty_check_dense(op, arg, t, TY_REAL, -1));
  if (ty_same_shape(t, model)) return 0;
  return ty_fail("%s: %s has shape %s, expected %s", op, arg, ty_shape_text(t), ty_shape_text(model));
}

int ty_accept_max(ty_matrix *m, const ty_tensor *y, const ty_tensor *index, const ty_tensor *x) {
  TY_TRY(ty_check_real("max", "x", x));
  TY_TRY(ty_check_dense("max", "y", y, TY_REAL, x->ndim));
  TY_TRY(ty_check_dense("max", "index", index, TY_I64, x->ndim));
  ty_tensor expected = *x;
  if (x->ndim) expected.shape[x->ndim - 1] = 1;
  if (!ty_same_shape(y, &expected) || !ty_same_shape(index, &expected))
    return ty_fail("max: y and index for x %s must be %s, got %s and %s", ty_shape_text(x), ty_shape_text(&expected), ty_shape_text(y),
                   ty_shape_text(index));
  *m = ty_matrix_of(x);
  return m->columns ? 0 : ty_fail("max: the last dim of %s is empty", ty_shape_text(x));
}

int ty_accept_softmax(ty_matrix *m, const ty_tensor *y, const ty_tensor *x) {
  TY_TRY(ty_check_dense("softmax", "x", x, TY_REAL, -1));
  *m = ty_matrix_of(x);
  return check_like("softmax", "y", y, x);
}

int ty_accept_softmax_back(ty_matrix *m, const ty_tensor *dx, const ty_tensor *dy, const ty_tensor *y) {
  TY_TRY(ty_check_dense("softmax backward", "y", y, TY_REAL, -1));
  TY_TRY(check_like("softmax backward", "dy", dy, y));
  *m = ty_matrix_of(y);
  return check_like("softmax backward", "dx", dx, y);
}

int ty_accept_normalize(ty_matrix *m, const ty_tensor *y, const ty_tensor *norm, const ty_tensor *x) {
  TY_TRY(ty_check_dense("normalize", "x", x, TY_REAL, -1));
  TY_TRY(check_like("normalize", "y", y, x));
  TY_TRY(ty_check_dense("normalize", "norm", norm, TY_REAL, 1));
  *m = ty_matrix_of(x);
  return ty_check_size("normalize", "norm", norm, 0, m->rows);
}

int ty_accept_normalize_back(ty_matrix *m, const ty_tensor *dx, const ty_tensor *dy, const ty_tensor *y, const ty_tensor *norm) {
  TY_TRY(ty_check_dense("normalize backward", "y", y, TY_REAL, -1));
  TY_TRY(check_like("normalize backward", "dy", dy, y));
  TY_TRY(check_like("normalize backward", "dx", dx, y));
  TY_TRY(ty_check_dense("normalize backward", "norm", norm, TY_REAL, 1));
  *m = ty_matrix_of(y);
  return ty_check_size("normalize backward", "norm", norm, 0, m->rows);
}

/* ---- rows by number ---- */

int ty_accept_index(const char *op, const ty_tensor *rows, const ty_tensor *picked, const ty_tensor *index, int64_t *width) {
  TY_TRY(ty_check_dense(op, "index", index, TY_I64, -1));
  if (rows->ndim < 1 || picked->ndim != rows->ndim || picked->shape[0] != ty_numel(index) || rows->dtype != picked->dtype)
    return ty_fail("%s: %lld indices do not fit %s and %s", op, (long long)ty_numel(index), ty_shape_text(rows), ty_shape_text(picked));
  TY_TRY(ty_check_device(op, "x", rows));
  TY_TRY(ty_check_device(op, "y", picked));
  *width = 1;
  for (int i = 1; i < rows->ndim; i++) {
    if (rows->shape[i] != picked->shape[i]) return ty_fail("%s: rows of %s and %s differ", op, ty_shape_text(rows), ty_shape_text(picked));
    *width *= rows->shape[i];
  }
  return 0;
}

/* ---- matrix products ---- */

/* Whether two elements of a result share memory, as they do in an expanded tensor. */
static int overlaps(const ty_tensor *y) {
  int n = y->ndim;
  for (int i = 0; i < n; i++)
    if (y->shape[i] > 1 && y->stride[i] == 0) return 1;
  if (y->shape[n - 2] == 1 || y->shape[n - 1] == 1) return 0;
  int64_t row = y->stride[n - 2], column = y->stride[n - 1];
  return row > column ? row < column * y->shape[n - 1] : column < row * y->shape[n - 2];
}

int ty_accept_matmul(const ty_tensor *y, const ty_tensor *a, const ty_tensor *b) {
  TY_TRY(ty_check_float("matmul", "a", a));
  TY_TRY(ty_check_type("matmul", "b", b, a->dtype));
  TY_TRY(y->dtype == TY_REAL ? ty_check_device("matmul", "y", y) : ty_check_type("matmul", "y", y, a->dtype));
  int n = y->ndim;
  int fits = n >= 2 && a->ndim == n && b->ndim == n;
  for (int i = 0; fits && i < n - 2; i++) fits = a->shape[i] == y->shape[i] && b->shape[i] == y->shape[i];
  fits = fits && a->shape[n - 2] == y->shape[n - 2] && b->shape[n - 1] == y->shape[n - 1] && a->shape[n - 1] == b->shape[n - 2];
  if (!fits)
    return ty_fail("matmul: expected (..., M, K) x (..., K, N) -> (..., M, N), got %s x %s -> %s", ty_shape_text(a), ty_shape_text(b),
                   ty_shape_text(y));
  if (y->shape[n - 2] > INT_MAX || y->shape[n - 1] > INT_MAX || a->shape[n - 1] > INT_MAX)
    return ty_fail("matmul: sizes must be below 2^31, got %s x %s", ty_shape_text(a), ty_shape_text(b));
  if (ty_numel(y) && overlaps(y))
    return ty_fail("matmul: elements of y %s share memory; the result needs memory of its own", ty_shape_text(y));
  return 0;
}

int ty_accept_linear(const ty_tensor *y, const ty_tensor *x, const ty_tensor *w, const ty_tensor *b) {
  TY_TRY(ty_check_float("linear", "x", x));
  TY_TRY(ty_check_dense("linear", "y", y, x->dtype, 2));
  if (x->ndim != 2 || w->ndim != 2 || w->shape[1] != x->shape[1] || y->shape[0] != x->shape[0] || y->shape[1] != w->shape[0])
    return ty_fail("linear: expected x (M, K), w (N, K) -> y (M, N), got %s, %s -> %s", ty_shape_text(x), ty_shape_text(w),
                   ty_shape_text(y));
  if (!b) return 0;
  TY_TRY(ty_check_float("linear", "b", b));
  TY_TRY(ty_check_dense("linear", "b", b, b->dtype, 1));
  return ty_check_size("linear", "b", b, 0, w->shape[0]);
}

/* ---- losses ---- */

static int check_scalar(const char *op, const char *arg, const ty_tensor *t) {
  TY_TRY(ty_check_real(op, arg, t));
  return ty_numel(t) == 1 ? 0 : ty_fail("%s: %s must be a scalar, got shape %s", op, arg, ty_shape_text(t));
}

static int check_classes(const char *op, const ty_tensor *p, const ty_tensor *target) {
  TY_TRY(ty_check_dense(op, "p", p, TY_REAL, 2));
  TY_TRY(ty_check_dense(op, "target", target, TY_I64, 1));
  TY_TRY(ty_check_size(op, "target", target, 0, p->shape[0]));
  if (p->shape[0] == 0 || p->shape[1] == 0) return ty_fail("%s: expected at least one row and one class, got %s", op, ty_shape_text(p));
  return 0;
}

int ty_accept_cross_entropy(const ty_tensor *loss, const ty_tensor *p, const ty_tensor *x, const ty_tensor *target) {
  TY_TRY(check_classes("cross_entropy", p, target));
  TY_TRY(ty_check_dense("cross_entropy", "x", x, TY_REAL, 2));
  if (!ty_same_shape(x, p)) return ty_fail("cross_entropy: p %s must have the shape of x %s", ty_shape_text(p), ty_shape_text(x));
  return check_scalar("cross_entropy", "loss", loss);
}

int ty_accept_cross_entropy_back(const ty_tensor *dx, const ty_tensor *dloss, const ty_tensor *p, const ty_tensor *target) {
  TY_TRY(check_classes("cross_entropy backward", p, target));
  TY_TRY(ty_check_dense("cross_entropy backward", "dx", dx, TY_REAL, 2));
  TY_TRY(check_scalar("cross_entropy backward", "dloss", dloss));
  if (ty_same_shape(dx, p)) return 0;
  return ty_fail("cross_entropy backward: dx %s must have the shape of p %s", ty_shape_text(dx), ty_shape_text(p));
}

int ty_accept_pair_cross_entropy(const char *op, const ty_tensor *ds, const ty_tensor *loss, const ty_tensor *lse, const ty_tensor *s,
                                 double temperature) {
  TY_TRY(ty_check_dense(op, "s", s, TY_REAL, 2));
  if (s->shape[0] != s->shape[1] || s->shape[0] < 2 || s->shape[0] % 2)
    return ty_fail("%s: expected s (R, R) with an even R of at least 2, got shape %s", op, ty_shape_text(s));
  if (!(temperature > 0)) return ty_fail("%s: the temperature must be above 0, got %g", op, temperature);
  TY_TRY(ty_check_dense(op, "lse", lse, TY_REAL, 1));
  TY_TRY(ty_check_size(op, "lse", lse, 0, s->shape[0]));
  TY_TRY(check_scalar(op, ds ? "dloss" : "loss", loss));
  if (!ds) return 0;
  TY_TRY(ty_check_dense(op, "ds", ds, TY_REAL, 2));
  return ty_same_shape(ds, s) ? 0 : ty_fail("%s: ds %s must have the shape of s %s", op, ty_shape_text(ds), ty_shape_text(s));
}

/* ---- optimisers ---- */

/* All of one layout without gaps, so that memory order serves as index. */
static int check_layout(const char *op, const ty_tensor *w, const ty_tensor *other, const char *name) {
  TY_TRY(ty_check_real(op, name, other));
  if (!ty_same_layout(w, other))
    return ty_fail("%s: %s %s must have the shape and memory order of w %s", op, name, ty_shape_text(other), ty_shape_text(w));
  return 0;
}
static int check_packed(const char *op, const ty_tensor *w) {
  TY_TRY(ty_check_real(op, "w", w));
  int64_t span = 1;
  for (int i = 0; i < w->ndim; i++) span += (w->shape[i] - 1) * w->stride[i];
  if (ty_numel(w) && span != ty_numel(w)) return ty_fail("%s: w of shape %s must have no gaps in memory", op, ty_shape_text(w));
  return 0;
}

/* slots: how many of m and v the optimiser keeps. */
static int check_parameters(const char *op, const ty_parameter *list, int64_t count, int slots) {
  for (int64_t i = 0; i < count; i++) {
    const ty_parameter *p = &list[i];
    TY_TRY(check_packed(op, p->w));
    TY_TRY(check_layout(op, p->w, p->g, "g"));
    if (slots > 0) TY_TRY(check_layout(op, p->w, p->m, "m"));
    if (slots > 1) TY_TRY(check_layout(op, p->w, p->v, "v"));
  }
  return 0;
}

int ty_accept_step(const char *op, const ty_parameter *list, int64_t count, int slots, const ty_tensor *steps, const ty_tensor *scale,
                   const ty_tensor *overflow, const ty_tensor *lr) {
  TY_TRY(check_parameters(op, list, count, slots));
  TY_TRY(ty_check_dense(op, "lr", lr, TY_F64, 0));
  TY_TRY(ty_check_dense(op, "steps", steps, TY_I64, 1));
  for (int64_t i = 0; i < count; i++)
    if (list[i].number < 0 || list[i].number >= steps->shape[0])
      return ty_fail("%s: parameter %lld has no entry in steps %s", op, (long long)list[i].number, ty_shape_text(steps));
  if (scale) TY_TRY(check_scalar(op, "scale", scale));
  return overflow ? check_scalar(op, "overflow", overflow) : 0;
}

int ty_accept_overflow(const ty_tensor *overflow, const ty_parameter *list, int64_t count) {
  TY_TRY(check_scalar("find_overflow", "overflow", overflow));
  return check_parameters("find_overflow", list, count, 0);
}

int ty_accept_update_scale(const ty_tensor *scale, const ty_tensor *counts, const ty_tensor *overflow) {
  TY_TRY(check_scalar("update_scale", "scale", scale));
  TY_TRY(check_scalar("update_scale", "overflow", overflow));
  TY_TRY(ty_check_dense("update_scale", "counts", counts, TY_I64, 1));
  return ty_check_size("update_scale", "counts", counts, 0, 3);
}
