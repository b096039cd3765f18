/* Rows by number: gathering and its adjoint. */
#include "accept.h"

/* The same checks, and every index. */
static int check(const char *op, const ty_tensor *rows, const ty_tensor *picked, const ty_tensor *index, int64_t *width) {
  TY_TRY(ty_accept_index(op, rows, picked, index, width));
  const int64_t *at = index->data;
  for (int64_t i = 0; i < picked->shape[0]; i++)
    if (at[i] < 0 || at[i] >= rows->shape[0]) {
      if (rows->shape[0] == 0) return ty_fail("%s: index %lld into %s, which has no rows", op, (long long)at[i], ty_shape_text(rows));
      return ty_fail("%s: index %lld is out of range 0..%lld of %s (tensors count from 0)", op, (long long)at[i],
                     (long long)rows->shape[0] - 1, ty_shape_text(rows));
    }
  return 0;
}

/* One row as a tensor of its own. */
static ty_tensor row_of(const ty_tensor *t, int64_t i) {
  ty_tensor row = *t;
  row.data = (char *)t->data + i * t->stride[0] * ty_dtype_size(t->dtype);
  row.ndim = t->ndim - 1;
  for (int d = 0; d < row.ndim; d++) row.shape[d] = t->shape[d + 1], row.stride[d] = t->stride[d + 1];
  return row;
}

/* Whether two tensors' rows have one memory order without gaps, so that bytes can be copied. */
static int same_packed_rows(const ty_tensor *a, const ty_tensor *b, int64_t width) {
  int64_t span = 1;
  for (int d = 1; d < a->ndim; d++) {
    if (a->shape[d] == 1) continue;
    if (a->stride[d] != b->stride[d]) return 0;
    span += (a->shape[d] - 1) * a->stride[d];
  }
  return span == width;
}

int ty_gather(ty_tensor *y, const ty_tensor *x, const ty_tensor *index) {
  int64_t width;
  TY_TRY(check("index_select", x, y, index, &width));
  const int64_t *at = index->data;
  int64_t rows = y->shape[0];
  if (width == 0) return 0;
  if (same_packed_rows(y, x, width)) {
    size_t bytes = (size_t)width * ty_dtype_size(x->dtype);
#pragma omp parallel for schedule(static) if (rows * width >= TY_PARALLEL)
    for (int64_t i = 0; i < rows; i++) {
      if (ty_is_unwanted()) continue;
      memcpy(row_of(y, i).data, row_of(x, at[i]).data, bytes);
    }
    return 0;
  }
  for (int64_t i = 0; i < rows && !ty_is_unwanted(); i++) {
    ty_tensor from = row_of(x, at[i]), to = row_of(y, i);
    TY_TRY(ty_copy(&to, &from));
  }
  return 0;
}

int ty_scatter_add(ty_tensor *dx, const ty_tensor *dy, const ty_tensor *index) {
  int64_t width;
  TY_TRY(ty_check_real("index_select backward", "dx", dx));
  TY_TRY(check("index_select backward", dx, dy, index, &width));
  for (int64_t i = 0; i < dy->shape[0] && !ty_is_unwanted(); i++) {
    ty_tensor from = row_of(dy, i), to = row_of(dx, ((const int64_t *)index->data)[i]);
    TY_TRY(ty_add(&to, &to, &from));
  }
  return 0;
}
