/* The strided loop: dims are ordered by the output's memory and merged where possible, then shared among threads in blocks. */
#include "strided.h"

enum { BLOCK = 8192 };

/* Operand k broadcast to the output's shape: missing and size-1 dims get stride 0. */
static int add_operand(ty_plan *p, const char *op, const ty_tensor *y, const ty_tensor *t) {
  if (t->ndim > y->ndim) return ty_fail("%s: %s does not broadcast to %s", op, ty_shape_text(t), ty_shape_text(y));
  int k = p->operands++;
  p->data[k] = t->data;
  p->dtype[k] = t->dtype;
  p->size[k] = ty_dtype_size(t->dtype);
  for (int i = 0; i < y->ndim; i++) {
    int j = i - (y->ndim - t->ndim);
    int64_t size = j < 0 ? 1 : t->shape[j];
    if (size != 1 && size != y->shape[i]) return ty_fail("%s: %s does not broadcast to %s", op, ty_shape_text(t), ty_shape_text(y));
    p->stride[k][i] = size == 1 ? 0 : t->stride[j];
  }
  return 0;
}

static void swap_dims(ty_plan *p, int i, int j) {
  int64_t t = p->shape[i];
  p->shape[i] = p->shape[j];
  p->shape[j] = t;
  for (int k = 0; k < p->operands; k++) {
    t = p->stride[k][i];
    p->stride[k][i] = p->stride[k][j];
    p->stride[k][j] = t;
  }
}

/* Orders dims by the output's strides and merges those that are one run for every operand, so that the inner loop is long. */
static void simplify(ty_plan *p) {
  int n = 0;
  for (int i = 0; i < p->ndim; i++) {
    if (p->shape[i] == 1) continue;
    if (i != n) swap_dims(p, n, i);
    n++;
  }
  for (int i = 1; i < n; i++)
    for (int j = i; j > 0 && p->stride[0][j] > p->stride[0][j - 1]; j--) swap_dims(p, j, j - 1);
  int last = 0;
  for (int i = 1; i < n; i++) {
    int joins = 1;
    for (int k = 0; k < p->operands; k++) joins = joins && p->stride[k][last] == p->shape[i] * p->stride[k][i];
    if (joins) {
      p->shape[last] *= p->shape[i];
      for (int k = 0; k < p->operands; k++) p->stride[k][last] = p->stride[k][i];
    } else if (++last != i) {
      swap_dims(p, last, i);
    }
  }
  p->ndim = n ? last + 1 : 0;
}

static void run_block(const ty_plan *p, ty_row_loop loop, int64_t outer, int64_t start, int64_t count) {
  void *data[TY_OPERANDS];
  int64_t stride[TY_OPERANDS];
  int inner = p->ndim - 1;
  for (int k = 0; k < p->operands; k++) {
    stride[k] = p->stride[k][inner];
    data[k] = p->data[k] + start * stride[k] * p->size[k];
  }
  for (int i = inner - 1; i >= 0; i--) {
    int64_t at = outer % p->shape[i];
    outer /= p->shape[i];
    for (int k = 0; k < p->operands; k++) data[k] = (char *)data[k] + at * p->stride[k][i] * p->size[k];
  }
  loop(count, data, stride);
}

static void execute(const ty_plan *p, ty_row_loop loop) {
  int64_t total = p->total;
  if (total == 0) return;
  if (p->ndim == 0) {
    void *data[TY_OPERANDS];
    const int64_t zeros[TY_OPERANDS] = {0};
    for (int k = 0; k < p->operands; k++) data[k] = p->data[k];
    loop(1, data, zeros);
    return;
  }
  int64_t n = p->shape[p->ndim - 1], outer = total / n;
  int64_t blocks = (n + BLOCK - 1) / BLOCK;
  if (total < TY_PARALLEL) {
    for (int64_t o = 0; o < outer; o++) run_block(p, loop, o, 0, n);
    return;
  }
#pragma omp parallel for schedule(static)
  for (int64_t task = 0; task < outer * blocks; task++) {
    if (ty_is_unwanted()) continue;
    int64_t start = task % blocks * BLOCK;
    run_block(p, loop, task / blocks, start, n - start < BLOCK ? n - start : BLOCK);
  }
}

int ty_plan_strided(ty_plan *p, const char *op, const ty_tensor *y, const ty_tensor *const *inputs, int count) {
  *p = (ty_plan){.ndim = y->ndim, .total = ty_numel(y)};
  for (int i = 0; i < y->ndim; i++) p->shape[i] = y->shape[i];
  TY_TRY(add_operand(p, op, y, y));
  for (int i = 0; i < count; i++) TY_TRY(add_operand(p, op, y, inputs[i]));
  simplify(p);
  return 0;
}

int ty_strided(const char *op, ty_row_loop loop, ty_tensor *y, const ty_tensor *const *inputs, int count) {
  ty_plan p;
  TY_TRY(ty_plan_strided(&p, op, y, inputs, count));
  execute(&p, loop);
  return 0;
}
