/* What each operation accepts: one function an op, shared by the CPU's and the device's bodies. Each returns 0, or fails with a sentence that
 * names the op, the argument and what came. They look at shapes, dtypes, memory order and device, never at elements. */
#ifndef TYCHO_ACCEPT_H
#define TYCHO_ACCEPT_H
#include "conv.h"
#include "strided.h"

/* A tensor seen as rows along its last dim. */
typedef struct ty_matrix { int64_t rows, columns; } ty_matrix;
static inline ty_matrix ty_matrix_of(const ty_tensor *x) {
  int64_t n = x->ndim ? x->shape[x->ndim - 1] : 1;
  ty_matrix m = {n ? ty_numel(x) / n : 0, n};
  return m;
}

int ty_accept_copy(const ty_tensor *y, const ty_tensor *x);
int ty_accept_map(const char *op, const ty_tensor *y, const ty_tensor *const *inputs, int count);

/* Also sorts x's dims into those that y keeps and those that are summed. */
int ty_accept_sum(ty_dims *kept, ty_dims *reduced, const ty_tensor *y, const ty_tensor *x);
int ty_accept_max(ty_matrix *m, const ty_tensor *y, const ty_tensor *index, const ty_tensor *x);
int ty_accept_softmax(ty_matrix *m, const ty_tensor *y, const ty_tensor *x);
int ty_accept_softmax_back(ty_matrix *m, const ty_tensor *dx, const ty_tensor *dy, const ty_tensor *y);
int ty_accept_normalize(ty_matrix *m, const ty_tensor *y, const ty_tensor *norm, const ty_tensor *x);
int ty_accept_normalize_back(ty_matrix *m, const ty_tensor *dx, const ty_tensor *dy, const ty_tensor *y, const ty_tensor *norm);

/* rows (n, ...), index (m), picked (m, ...); width: elements of a row. */
int ty_accept_index(const char *op, const ty_tensor *rows, const ty_tensor *picked, const ty_tensor *index, int64_t *width);

int ty_accept_matmul(const ty_tensor *y, const ty_tensor *a, const ty_tensor *b);
int ty_accept_linear(const ty_tensor *y, const ty_tensor *x, const ty_tensor *w, const ty_tensor *b);

/* The three tensors of one convolution under the names that they have in op. */
int ty_accept_conv(conv_shape *s, const char *op, const char *x_name, const ty_tensor *x, const char *w_name, const ty_tensor *w,
                   const char *y_name, const ty_tensor *y, int stride, int padding);

/* Batch norm sees x as rows of channels. */
int ty_accept_statistics(ty_matrix *m, const ty_tensor *mean, const ty_tensor *rstd, const ty_tensor *running_mean, const ty_tensor *running_var,
                         const ty_tensor *x);
int ty_accept_rstd(const ty_tensor *rstd, const ty_tensor *var);
int ty_accept_batch_norm(ty_matrix *m, const ty_tensor *y, const ty_tensor *x, const ty_tensor *mean, const ty_tensor *rstd,
                         const ty_tensor *weight, const ty_tensor *bias, const ty_tensor *residual);
int ty_accept_batch_norm_pool(const ty_tensor *y, const ty_tensor *index, const ty_tensor *x, const ty_tensor *mean, const ty_tensor *rstd,
                              const ty_tensor *weight, const ty_tensor *bias, int kernel, int stride, int padding);
int ty_accept_batch_norm_back(ty_matrix *m, const ty_tensor *dx, const ty_tensor *dweight, const ty_tensor *dbias, const ty_tensor *dresidual,
                              const ty_tensor *dy, const ty_tensor *more, const ty_tensor *x, const ty_tensor *y, const ty_tensor *weight,
                              const ty_tensor *bias, const ty_tensor *mean, const ty_tensor *rstd);
int ty_accept_batch_norm_pool_back(ty_matrix *m, const ty_tensor *dx, const ty_tensor *dweight, const ty_tensor *dbias, const ty_tensor *dy,
                                   const ty_tensor *index, const ty_tensor *x, const ty_tensor *weight, const ty_tensor *bias,
                                   const ty_tensor *mean, const ty_tensor *rstd, int kernel, int stride, int padding);
int ty_accept_layer_norm(ty_matrix *m, const ty_tensor *y, const ty_tensor *mean, const ty_tensor *rstd, const ty_tensor *x,
                         const ty_tensor *weight, const ty_tensor *bias);
int ty_accept_layer_norm_back(ty_matrix *m, const ty_tensor *dx, const ty_tensor *dweight, const ty_tensor *dbias, const ty_tensor *dy,
                              const ty_tensor *x, const ty_tensor *weight, const ty_tensor *mean, const ty_tensor *rstd);

/* The pooled image is y or dy, the full one x or dx. */
int ty_accept_window(const char *op, const char *y_name, const ty_tensor *y, const ty_tensor *index, const char *x_name,
                     const ty_tensor *x, int kernel, int stride, int padding);
int ty_accept_average(const char *op, const char *y_name, const ty_tensor *y, const char *x_name, const ty_tensor *x);

/* Sizes of the header's shapes; M is 0 without memory. */
typedef struct ty_heads { int64_t B, H, T, S, M, D; } ty_heads;
int ty_accept_attention(ty_heads *s, const ty_tensor *y, const ty_tensor *p, const ty_tensor *q, const ty_tensor *k, const ty_tensor *v,
                        const ty_tensor *mask, const ty_tensor *memory_k, const ty_tensor *memory_v);
int ty_accept_attention_back(ty_heads *s, const ty_tensor *dq, const ty_tensor *dk, const ty_tensor *dv, const ty_tensor *dy,
                             const ty_tensor *p, const ty_tensor *q, const ty_tensor *k, const ty_tensor *v);

int ty_accept_cross_entropy(const ty_tensor *loss, const ty_tensor *p, const ty_tensor *x, const ty_tensor *target);
int ty_accept_cross_entropy_back(const ty_tensor *dx, const ty_tensor *dloss, const ty_tensor *p, const ty_tensor *target);
/* ds [opt] */
int ty_accept_pair_cross_entropy(const char *op, const ty_tensor *ds, const ty_tensor *loss, const ty_tensor *lse, const ty_tensor *s,
                                 double temperature);

/* slots: how many of m and v the optimiser keeps. */
int ty_accept_step(const char *op, const ty_parameter *list, int64_t count, int slots, const ty_tensor *steps, const ty_tensor *scale,
                   const ty_tensor *overflow, const ty_tensor *lr);
int ty_accept_update_scale(const ty_tensor *scale, const ty_tensor *counts, const ty_tensor *overflow);
int ty_accept_overflow(const ty_tensor *overflow, const ty_parameter *list, int64_t count);

int ty_accept_normalize_images(const ty_tensor *y, const ty_tensor *x, const ty_tensor *index);

#endif
