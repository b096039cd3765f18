/* Matrix products over OpenBLAS. Reads transposed operands in place; copies only what BLAS cannot address. */
#include "accept.h"
#include "blas.h"
#include <limits.h>
#include <omp.h>

/* Multiplications in a product that is worth all threads, and rows or columns of y that are enough for one of them. */
enum { LARGE = 1 << 21, SIDE_EACH = 64 };

/* Element (i, j) at data[i * row + j * column]. */
typedef struct matrix { real *data; int64_t row, column; } matrix;

/* An operand as BLAS takes it. */
typedef struct operand { real *data; int trans; int64_t ld; } operand;

static matrix transposed(matrix m) { return (matrix){m.data, m.column, m.row}; }

/* The distance of rows if BLAS can read the matrix in row-major order, else 0. Strides of dims of size 1 do not matter. */
static int64_t leading(matrix m, int64_t rows, int64_t columns) {
  if (columns > 1 && m.column != 1) return 0;
  if (rows == 1) return columns;
  return m.row >= columns && m.row <= INT_MAX ? m.row : 0;
}

/* Describes a matrix, or a dense copy of it where rows and columns both have gaps; copy must be freed. Fails when memory is out. */
static int describe(operand *o, real **copy, matrix m, int64_t rows, int64_t columns) {
  *copy = NULL;
  if ((o->ld = leading(m, rows, columns))) {
    *o = (operand){m.data, NO_TRANS, o->ld};
  } else if ((o->ld = leading(transposed(m), columns, rows))) {
    *o = (operand){m.data, TRANS, o->ld};
  } else {
    *copy = ty_alloc(rows * columns * (int64_t)sizeof(real));
    if (!*copy) return 1;
    for (int64_t i = 0; i < rows; i++)
      for (int64_t j = 0; j < columns; j++) (*copy)[i * columns + j] = m.data[i * m.row + j * m.column];
    *o = (operand){*copy, NO_TRANS, columns};
  }
  return 0;
}

/* y = a b + beta y for a y of row distance ld. */
static int multiply(real *y, int64_t ld, matrix a, matrix b, int64_t M, int64_t N, int64_t K, real beta) {
  real *copy_a, *copy_b = NULL;
  operand oa, ob;
  int failed = describe(&oa, &copy_a, a, M, K) || describe(&ob, &copy_b, b, K, N);
  /* Threads that share out one side of y, without a word between them, are up to a tenth faster than BLAS's own sharing: each packs the factor
   * on that side in part and the other one whole. That is the longer side, or the rows where a is transposed (measured). */
  int64_t threads = omp_in_parallel() ? 1 : ty_threads();
  int by_rows = M >= N || (!failed && oa.trans == TRANS && M >= threads * SIDE_EACH);
  int64_t side = by_rows ? M : N, each = (side + threads - 1) / threads;
  if (!failed && threads > 1 && each >= SIDE_EACH && (double)M * (double)N * (double)K >= LARGE) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < side; i += each) {
      int64_t count = side - i < each ? side - i : each, row = by_rows ? i : 0, column = by_rows ? 0 : i;
      GEMM(ROW_MAJOR, oa.trans, ob.trans, (int)(by_rows ? count : M), (int)(by_rows ? N : count), (int)K, 1,
           oa.data + (oa.trans == TRANS ? row : row * oa.ld), (int)oa.ld, ob.data + (ob.trans == TRANS ? column * ob.ld : column), (int)ob.ld,
           beta, y + row * ld + column, (int)ld);
    }
  } else if (!failed) {
    GEMM(ROW_MAJOR, oa.trans, ob.trans, (int)M, (int)N, (int)K, 1, oa.data, (int)oa.ld, ob.data, (int)ob.ld, beta, y, (int)ld);
  }
  ty_free(copy_a, M * K * (int64_t)sizeof(real));
  ty_free(copy_b, K * N * (int64_t)sizeof(real));
  return failed;
}

/* Multiplications between two looks at whether the product is still wanted: a fraction of a second. */
static const double SLICE = 1.7e10;

/* The same in halves of y, and halves of these, until one takes no longer than that. */
static int multiply_in_slices(real *y, int64_t ld, matrix a, matrix b, int64_t M, int64_t N, int64_t K, real beta) {
  if (ty_is_unwanted()) return 0;
  int64_t longer = M >= N ? M : N, half = (longer / 2 + SIDE_EACH - 1) / SIDE_EACH * SIDE_EACH;
  if ((double)M * (double)N * (double)K <= SLICE || half >= longer) return multiply(y, ld, a, b, M, N, K, beta);
  if (M >= N) {
    matrix below = {a.data + half * a.row, a.row, a.column};
    return multiply_in_slices(y, ld, a, b, half, N, K, beta) || multiply_in_slices(y + half * ld, ld, below, b, M - half, N, K, beta);
  }
  matrix right = {b.data + half * b.column, b.row, b.column};
  return multiply_in_slices(y, ld, a, b, M, half, K, beta) || multiply_in_slices(y + half, ld, a, right, M, N - half, K, beta);
}

/* The same for a y with gaps between its columns. */
static int multiply_spaced(matrix y, matrix a, matrix b, int64_t M, int64_t N, int64_t K, real beta) {
  real *product = ty_alloc(M * N * (int64_t)sizeof(real));
  if (!product) return 1;
  int failed = multiply_in_slices(product, N, a, b, M, N, K, 0);
  for (int64_t i = 0; !failed && i < M; i++)
    for (int64_t j = 0; j < N; j++) {
      real *at = y.data + i * y.row + j * y.column;
      *at = product[i * N + j] + (beta == 0 ? 0 : beta * *at);
    }
  ty_free(product, M * N * (int64_t)sizeof(real));
  return failed;
}

/* Any strides, M and N above 0. A transposed y is the product of the transposed factors in the other order. */
static int multiply_any(matrix y, matrix a, matrix b, int64_t M, int64_t N, int64_t K, real beta) {
  if (K == 0) {
    for (int64_t i = 0; i < M; i++)
      for (int64_t j = 0; j < N; j++) {
        real *at = y.data + i * y.row + j * y.column;
        *at = beta == 0 ? 0 : beta * *at;
      }
    return 0;
  }
  int64_t ld = leading(y, M, N);
  if (ld) return multiply_in_slices(y.data, ld, a, b, M, N, K, beta);
  ld = leading(transposed(y), N, M);
  if (ld) return multiply_in_slices(y.data, ld, transposed(b), transposed(a), N, M, K, beta);
  return multiply_spaced(y, a, b, M, N, K, beta);
}

static matrix matrix_at(const ty_tensor *t, int64_t batch) {
  int n = t->ndim;
  matrix m = {t->data, t->stride[n - 2], t->stride[n - 1]};
  for (int i = n - 3; i >= 0; i--) {
    m.data += batch % t->shape[i] * t->stride[i];
    batch /= t->shape[i];
  }
  return m;
}

int ty_matmul(ty_tensor *y, const ty_tensor *a, const ty_tensor *b, double beta) {
  TY_TRY(ty_accept_matmul(y, a, b));
  int n = y->ndim;
  int64_t batches = 1;
  for (int i = 0; i < n - 2; i++) batches *= y->shape[i];
  int64_t M = y->shape[n - 2], N = y->shape[n - 1], K = a->shape[n - 1];
  if (M == 0 || N == 0 || batches == 0) return 0;
  int failed = 0;
  /* One matrix a thread, unless they are few and large: each is then shared among all threads. Not by an if clause: inside a region that the
   * clause made serial, OpenMP would start new threads for every product. */
  if (batches > 1 && batches * M * N * K >= TY_PARALLEL && ((double)M * (double)N * (double)K < LARGE || batches >= ty_threads())) {
#pragma omp parallel for schedule(static) reduction(| : failed)
    for (int64_t i = 0; i < batches; i++) failed |= multiply_any(matrix_at(y, i), matrix_at(a, i), matrix_at(b, i), M, N, K, (real)beta);
  } else {
    for (int64_t i = 0; i < batches; i++) failed |= multiply_any(matrix_at(y, i), matrix_at(a, i), matrix_at(b, i), M, N, K, (real)beta);
  }
  return failed ? ty_fail("matmul: out of memory for a copy of %s or %s", ty_shape_text(a), ty_shape_text(b)) : 0;
}

int ty_linear(ty_tensor *y, const ty_tensor *x, const ty_tensor *w, const ty_tensor *b) {
  TY_TRY(ty_accept_linear(y, x, w, b));
  ty_tensor wt = *w;
  wt.shape[0] = w->shape[1], wt.shape[1] = w->shape[0];
  wt.stride[0] = w->stride[1], wt.stride[1] = w->stride[0];
  if (!b) return ty_matmul(y, x, &wt, 0);
  /* The product adds to the bias: one pass over y less than adding it afterwards. */
  int64_t rows = y->shape[0], n = y->shape[1];
  real *out = y->data;
#pragma omp parallel for schedule(static) if (rows * n >= TY_PARALLEL)
  for (int64_t i = 0; i < rows; i++) {
    if (ty_is_unwanted()) continue;
    memcpy(out + i * n, b->data, (size_t)n * sizeof(real));
  }
  return ty_matmul(y, x, &wt, 1);
}
