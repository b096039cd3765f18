/* Matrix products over blas.h. Reads transposed operands in place; copies only what BLAS cannot address. All matrices of a batch go in one call,
 * by arrays of pointers that a kernel writes, because the heads of attention lie at no single distance from each other. */
#include "device.h"
#include "blas.h"

/* Whether BLAS can read the last two dims of t, and how. Strides of dims of size 1 do not matter. */
static int is_addressable(const ty_tensor *t, blas_layout *layout) {
  int64_t rows = t->shape[t->ndim - 2], columns = t->shape[t->ndim - 1], row = t->stride[t->ndim - 2], column = t->stride[t->ndim - 1];
  if ((columns == 1 || column == 1) && (rows == 1 || row >= columns)) {
    *layout = {0, rows == 1 ? columns : row};
    return 1;
  }
  if ((rows == 1 || row == 1) && (columns == 1 || column >= rows)) {
    *layout = {1, columns == 1 ? rows : column};
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

static ty_tensor transposed(const ty_tensor *t) {
  ty_tensor other = *t;
  int i = t->ndim - 2, j = t->ndim - 1;
  other.shape[i] = t->shape[j], other.shape[j] = t->shape[i];
  other.stride[i] = t->stride[j], other.stride[j] = t->stride[i];
  return other;
}

/* at[k][i] = the first element of matrix i of tensor k. */
struct factors { ty_tensor of[3]; int size[3]; };
__global__ void k_pointers(char **at, LARGE_ARGUMENT(factors) f, int64_t count) {
  int64_t i = thread_index();
  if (i >= 3 * count) return;
  int k = (int)(i / count);
  const ty_tensor &t = f.of[k];
  int64_t rest = i % count, offset = 0;
  for (int d = t.ndim - 3; d >= 0; d--) {
    offset += rest % t.shape[d] * t.stride[d];
    rest /= t.shape[d];
  }
  at[i] = (char *)t.data + offset * f.size[k];
}

/* y, a and b as BLAS can address them, y row by row. */
static int multiply(const ty_tensor *y, int64_t ldc, const ty_tensor *a, blas_layout la, const ty_tensor *b, blas_layout lb, real beta) {
  int n = y->ndim;
  int64_t M = y->shape[n - 2], N = y->shape[n - 1], K = a->shape[n - 1], count = ty_numel(y) / (M * N);
  const blas_types type = {a->dtype, y->dtype};
  if (count == 1) return blas_multiply("matmul", type, M, N, K, a->data, la, b->data, lb, beta, y->data, ldc);
  scratch<void *> at(3 * count);
  TY_TRY(at.missing("matmul"));
  const factors all = {{*y, *a, *b}, {ty_dtype_size(y->dtype), ty_dtype_size(a->dtype), ty_dtype_size(b->dtype)}};
  TY_TRY(launch_each("matmul", k_pointers, 3 * count, at.data, all, count));
  return blas_multiply_all("matmul", type, (int)count, M, N, K, at.data + count, la, at.data + 2 * count, lb, beta, at.data, ldc);
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
  TY_TRY(multiply(&to, ly.ld, &left, la, &right, lb, (real)beta));
  return dense_y ? ty_copy(y, &to) : 0;
}

int ty_linear(ty_tensor *y, const ty_tensor *x, const ty_tensor *w, const ty_tensor *b) {
  TY_TRY(ty_accept_linear(y, x, w, b));
  ty_tensor wt = transposed(w);
  if (b) TY_TRY(ty_copy(y, b)); /* the product adds to the bias: one pass over y less than adding it afterwards */
  return ty_matmul(y, x, &wt, b ? 1 : 0);
}
