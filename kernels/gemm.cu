/* Matrix products over blas.h. Reads transposed operands in place; copies only what BLAS cannot address. All matrices of a batch go in one call:
 * by their distance, or, as the heads of attention lie at no single one, by arrays of pointers that a kernel writes. What BLAS may not be given by
 * pointers goes in several calls. */
#include "strided.h"
#include "blas.h"
#include <utility>

/* Whether BLAS can read the last two dims of t, and how. Strides of dims of size 1 do not matter. */
static int is_addressable(const ty_tensor *t, blas_layout *layout) {
  int64_t rows = t->shape[t->ndim - 2], columns = t->shape[t->ndim - 1], row = t->stride[t->ndim - 2], column = t->stride[t->ndim - 1];
  if ((columns == 1 || column == 1) && (rows == 1 || row >= columns)) {
    *layout = {0, rows == 1 ? columns : row, 0};
    return 1;
  }
  if ((rows == 1 || row == 1) && (columns == 1 || column >= rows)) {
    *layout = {1, columns == 1 ? rows : column, 0};
    return 1;
  }
  return 0;
}

static ty_tensor dense_like(const ty_tensor *t, void *data) {
  ty_tensor dense = *t;
  dense.data = data;
  int64_t step = 1;
  for (int i = t->ndim - 1; i >= 0; i--) {
    dense.stride[i] = step;
    step *= t->shape[i];
  }
  return dense;
}

/* at[k][i] = the first element of matrix i of operand k of the batch. */
__global__ void k_pointers(char **at, ty_plan batch) {
  int64_t i = thread_index(), offset[3];
  if (i >= batch.total) return;
  offsets_of<3>(offset, batch, i);
  for (int k = 0; k < 3; k++) at[k * batch.total + i] = batch.data[k] + offset[k] * batch.size[k];
}

static bool are_aligned(const ty_plan &batch) {
  for (int k = 0; k < 3; k++) {
    uintptr_t bytes = (uintptr_t)batch.data[k];
    for (int d = 0; d < batch.ndim; d++) bytes |= (uintptr_t)(batch.stride[k][d] * batch.size[k]);
    if (bytes % BLAS_ALIGNED != 0) return false;
  }
  return true;
}

/* The dims of y, a and b before the last two, merged where they are one run, the longest one last. */
static ty_plan batch_of(ty_tensor y, ty_tensor a, ty_tensor b) {
  ty_plan p;
  const ty_tensor *const factors[] = {&a, &b};
  y.ndim -= 2, a.ndim -= 2, b.ndim -= 2;
  ty_plan_strided(&p, "matmul", &y, factors, 2); /* cannot fail: matmul's shapes are accepted */
  int last = p.ndim - 1;
  for (int d = 0; d < last; d++) {
    if (p.shape[d] <= p.shape[last]) continue;
    std::swap(p.shape[d], p.shape[last]);
    for (auto &stride : p.stride) std::swap(stride[d], stride[last]);
  }
  return p;
}

/* y, a and b as BLAS can address them, y row by row. */
static int multiply(const ty_tensor *y, blas_layout ly, const ty_tensor *a, blas_layout la, const ty_tensor *b, blas_layout lb, real beta) {
  const char *op = "matmul";
  int n = y->ndim;
  int64_t M = y->shape[n - 2], N = y->shape[n - 1], K = a->shape[n - 1];
  const blas_types type = {a->dtype, y->dtype};
  ty_plan batch = batch_of(*y, *a, *b);
  if (batch.ndim > 1 && are_aligned(batch)) {
    scratch<void *> at(3 * batch.total);
    TY_TRY(at.missing(op));
    TY_TRY(launch_each(op, k_pointers, batch.total, at.data, batch));
    return blas_multiply_all(op, type, batch.total, M, N, K, at.data + batch.total, la, at.data + 2 * batch.total, lb, beta, at.data, ly);
  }
  int last = batch.ndim - 1;
  int64_t count = batch.ndim ? batch.shape[last] : 1, offset[3];
  if (batch.ndim) ly.step = batch.stride[0][last], la.step = batch.stride[1][last], lb.step = batch.stride[2][last];
  for (int64_t i = 0; i < batch.total; i += count) {
    offsets_of<3>(offset, batch, i);
    TY_TRY(blas_multiply(op, type, count, M, N, K, batch.data[1] + offset[1] * batch.size[1], la, batch.data[2] + offset[2] * batch.size[2], lb, beta,
                         batch.data[0] + offset[0] * batch.size[0], ly));
  }
  return 0;
}

static int64_t bytes_of(const ty_tensor *t) { return ty_numel(t) * ty_dtype_size(t->dtype); }

/* A dense copy of t in block, for what BLAS cannot address. */
static int densify(ty_tensor *t, void *block) {
  ty_tensor dense = dense_like(t, block);
  TY_TRY(ty_copy(&dense, t));
  *t = dense;
  return 0;
}

int ty_matmul(ty_tensor *y, const ty_tensor *a, const ty_tensor *b, double beta) {
  TY_TRY(ty_accept_matmul(y, a, b));
  if (ty_numel(y) == 0) return 0;
  if (a->shape[a->ndim - 1] == 0) {
    if (beta == 0) return ty_fill(y, 0);
    ty_tensor factor = {};
    scratch<real> value(1);
    TY_TRY(value.missing("matmul"));
    factor.data = value.data, factor.dtype = TY_REAL, factor.device = y->device;
    TY_TRY(ty_fill(&factor, beta));
    return ty_mul(y, y, &factor);
  }
  ty_tensor to = *y, left = *a, right = *b;
  blas_layout ly, la, lb;
  int dense_y = !is_addressable(&to, &ly), dense_a = !is_addressable(&left, &la), dense_b = !is_addressable(&right, &lb);
  scratch<char> copy_y(dense_y ? bytes_of(y) : 0), copy_a(dense_a ? bytes_of(a) : 0), copy_b(dense_b ? bytes_of(b) : 0);
  TY_TRY(copy_y.missing("matmul") || copy_a.missing("matmul") || copy_b.missing("matmul"));
  if (dense_y) TY_TRY(densify(&to, copy_y.data));
  if (dense_a) TY_TRY(densify(&left, copy_a.data));
  if (dense_b) TY_TRY(densify(&right, copy_b.data));
  is_addressable(&to, &ly);
  if (ly.transposed) { /* the product of the transposed factors in the other order */
    ty_tensor first = transposed(&right), second = transposed(&left);
    to = transposed(&to), left = first, right = second;
  }
  is_addressable(&left, &la);
  is_addressable(&right, &lb);
  TY_TRY(multiply(&to, ly, &left, la, &right, lb, (real)beta));
  return dense_y ? ty_copy(y, &to) : 0;
}

int ty_linear(ty_tensor *y, const ty_tensor *x, const ty_tensor *w, const ty_tensor *b) {
  TY_TRY(ty_accept_linear(y, x, w, b));
  ty_tensor wt = transposed(w);
  if (b) TY_TRY(ty_copy(y, b)); /* the product adds to the bias: one pass over y less than adding it afterwards */
  return ty_matmul(y, x, &wt, b ? 1 : 0);
}
