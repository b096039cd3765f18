/* Rows by number: gathering and its adjoint. */
#include "internal.h"

/* Checks x (n, ...), index (m), y (m, ...) and every index; returns the elements of a row. */
static int check(const char *op, const ty_tensor *rows, const ty_tensor *picked, const ty_tensor *index, int64_t *width) {
  TY_TRY(ty_check_dense(op, "index", index, TY_I64, -1));
  if (rows->ndim < 1 || picked->ndim != rows->ndim || picked->shape[0] != ty_numel(index) || rows->dtype != picked->dtype)
    return ty_fail("%s: %lld indices do not fit %s and %s", op, (long long)ty_numel(index), ty_shape_text(rows), ty_shape_text(picked));
  *width = 1;
  for (int i = 1; i < rows->ndim; i++) {
    if (rows->shape[i] != picked->shape[i]) return ty_fail("%s: rows of %s and %s differ", op, ty_shape_text(rows), ty_shape_text(picked));
    *width *= rows->shape[i];
  }
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
    for (int64_t i = 0; i < rows; i++) memcpy(row_of(y, i).data, row_of(x, at[i]).data, bytes);
    return 0;
  }
  for (int64_t i = 0; i < rows; i++) {
    ty_tensor from = row_of(x, at[i]), to = row_of(y, i);
    TY_TRY(ty_copy(&to, &from));
  }
  return 0;
}

int ty_scatter_add(ty_tensor *dx, const ty_tensor *dy, const ty_tensor *index) {
  int64_t width;
  TY_TRY(ty_check_real("index_select backward", "dx", dx));
  TY_TRY(check("index_select backward", dx, dy, index, &width));
  for (int64_t i = 0; i < dy->shape[0]; i++) {
    ty_tensor from = row_of(dy, i), to = row_of(dx, ((const int64_t *)index->data)[i]);
    TY_TRY(ty_add(&to, &to, &from));
  }
  return 0;
}
