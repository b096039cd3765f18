/* Matrix products over OpenBLAS. Reads transposed operands in place; copies only what BLAS cannot address. */
#include "blas.h"

/* A matrix as BLAS sees it: row-major with a leading dimension, perhaps transposed. */
typedef struct matrix { real *data; int64_t row, column; int trans, ld; } matrix;

static int describe(matrix *m, int64_t rows, int64_t columns) {
  if (m->column == 1 || columns == 1) {
    int64_t ld = rows == 1 ? columns : m->row;
    if (ld >= columns && (columns > 1 || ld >= 1)) {
      m->trans = NO_TRANS;
      m->ld = (int)(ld > columns ? ld : columns);
      if (columns == 1 || m->column == 1) return 1;
    }
  }
  if (m->row == 1 || rows == 1) {
    int64_t ld = columns == 1 ? rows : m->column;
    if (ld >= rows) {
      m->trans = TRANS;
      m->ld = (int)(ld > rows ? ld : rows);
      return 1;
    }
  }
  return 0;
}

/* A dense copy of a matrix whose rows and columns both have gaps; NULL when memory is out. */
static real *pack(const matrix *m, int64_t rows, int64_t columns) {
  real *copy = ty_alloc(rows * columns * (int64_t)sizeof(real));
  if (!copy) return NULL;
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++) copy[i * columns + j] = m->data[i * m->row + j * m->column];
  return copy;
}

static int multiply(matrix y, matrix a, matrix b, int64_t M, int64_t N, int64_t K, double beta) {
  if (K == 0) {
    for (int64_t i = 0; i < M; i++)
      for (int64_t j = 0; j < N; j++) y.data[i * y.row + j] = beta == 0 ? 0 : (real)beta * y.data[i * y.row + j];
    return 0;
  }
  real *copy_a = NULL, *copy_b = NULL;
  int failed = 0;
  if (!describe(&a, M, K)) {
    copy_a = pack(&a, M, K);
    failed = !copy_a;
    a = (matrix){copy_a, K, 1, NO_TRANS, (int)K};
  }
  if (!describe(&b, K, N)) {
    copy_b = pack(&b, K, N);
    failed = failed || !copy_b;
    b = (matrix){copy_b, N, 1, NO_TRANS, (int)N};
  }
  if (!failed)
    GEMM(ROW_MAJOR, a.trans, b.trans, (int)M, (int)N, (int)K, 1, a.data, a.ld, b.data, b.ld, (real)beta, y.data,
         (int)(M == 1 && y.row < N ? N : y.row));
  ty_free(copy_a, M * K * (int64_t)sizeof(real));
  ty_free(copy_b, K * N * (int64_t)sizeof(real));
  return failed;
}

static matrix matrix_at(const ty_tensor *t, int64_t batch) {
  int n = t->ndim;
  matrix m = {t->data, t->stride[n - 2], t->stride[n - 1], 0, 0};
  for (int i = n - 3; i >= 0; i--) {
    m.data += batch % t->shape[i] * t->stride[i];
    batch /= t->shape[i];
  }
  return m;
}

int ty_matmul(ty_tensor *y, const ty_tensor *a, const ty_tensor *b, double beta) {
  TY_TRY(ty_check_real("matmul", "a", a));
  TY_TRY(ty_check_real("matmul", "b", b));
  TY_TRY(ty_check_real("matmul", "y", y));
  int n = y->ndim;
  int fits = n >= 2 && a->ndim == n && b->ndim == n;
  int64_t batches = 1;
  for (int i = 0; fits && i < n - 2; i++) {
    fits = a->shape[i] == y->shape[i] && b->shape[i] == y->shape[i];
    batches *= y->shape[i];
  }
  fits = fits && a->shape[n - 2] == y->shape[n - 2] && b->shape[n - 1] == y->shape[n - 1] && a->shape[n - 1] == b->shape[n - 2];
  if (!fits)
    return ty_fail("matmul: expected (..., M, K) x (..., K, N) -> (..., M, N), got %s x %s -> %s", ty_shape_text(a), ty_shape_text(b),
                   ty_shape_text(y));
  int64_t M = y->shape[n - 2], N = y->shape[n - 1], K = a->shape[n - 1];
  if (M == 0 || N == 0 || batches == 0) return 0;
  if (N > 1 && y->stride[n - 1] != 1) return ty_fail("matmul: the last dim of y must have stride 1");
  int failed = 0;
  if (batches == 1) {
    failed = multiply(matrix_at(y, 0), matrix_at(a, 0), matrix_at(b, 0), M, N, K, beta);
  } else {
#pragma omp parallel for schedule(static) reduction(| : failed) if (batches * M * N * K >= TY_PARALLEL)
    for (int64_t i = 0; i < batches; i++) failed |= multiply(matrix_at(y, i), matrix_at(a, i), matrix_at(b, i), M, N, K, beta);
  }
  return failed ? ty_fail("matmul: out of memory for a copy of %s or %s", ty_shape_text(a), ty_shape_text(b)) : 0;
}

int ty_linear(ty_tensor *y, const ty_tensor *x, const ty_tensor *w, const ty_tensor *b) {
  TY_TRY(ty_check_dense("linear", "x", x, TY_REAL, 2));
  TY_TRY(ty_check_dense("linear", "y", y, TY_REAL, 2));
  if (w->ndim != 2 || w->shape[1] != x->shape[1] || y->shape[0] != x->shape[0] || y->shape[1] != w->shape[0])
    return ty_fail("linear: expected x (M, K), w (N, K) -> y (M, N), got %s, %s -> %s", ty_shape_text(x), ty_shape_text(w), ty_shape_text(y));
  ty_tensor wt = *w;
  wt.shape[0] = w->shape[1], wt.shape[1] = w->shape[0];
  wt.stride[0] = w->stride[1], wt.stride[1] = w->stride[0];
  if (!b) return ty_matmul(y, x, &wt, 0);
  TY_TRY(ty_check_dense("linear", "b", b, TY_REAL, 1));
  TY_TRY(ty_check_size("linear", "b", b, 0, w->shape[0]));
  /* The product adds to the bias: one pass over y less than adding it afterwards. */
  int64_t rows = y->shape[0], n = y->shape[1];
  real *out = y->data;
#pragma omp parallel for schedule(static) if (rows * n >= TY_PARALLEL)
  for (int64_t i = 0; i < rows; i++) memcpy(out + i * n, b->data, (size_t)n * sizeof(real));
  return ty_matmul(y, x, &wt, 1);
}
