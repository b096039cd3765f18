/* Softmax attention over strided heads: scores and sums by BLAS, mask and softmax in one pass over the scores. Shapes are the header's:
 * q, y (B,H,T,D); k, v (B,H,S,D); p (B,H,T,M+S); memory (H,M,D). */
#include "blas.h"
#include "fast_math.h"

/* Rows of one (batch, head): pointer and distance between rows. */
typedef struct rows { real *data; int step; } rows;

static rows rows_of(const ty_tensor *t, int64_t batch, int64_t head) {
  return (rows){(real *)t->data + batch * t->stride[0] + head * t->stride[1], (int)t->stride[2]};
}
static rows memory_of(const ty_tensor *t, int64_t head) { return (rows){(real *)t->data + head * t->stride[0], (int)t->stride[1]}; }

static int check_heads(const char *op, const char *arg, const ty_tensor *t, int64_t B, int64_t H, int64_t D) {
  TY_TRY(ty_check_real(op, arg, t));
  if (t->ndim != 4 || t->shape[0] != B || t->shape[1] != H || t->shape[3] != D)
    return ty_fail("%s: %s must be (%lld, %lld, *, %lld), got %s", op, arg, (long long)B, (long long)H, (long long)D, ty_shape_text(t));
  if (D > 1 && t->stride[3] != 1) return ty_fail("%s: the last dim of %s must have stride 1", op, arg);
  return 0;
}

/* a (m,k) times b (n,k)^T, or b (k,n) when plain. */
static void multiply(rows c, int m, int n, int k, real alpha, rows a, int trans_a, rows b, int trans_b, real beta) {
  GEMM(ROW_MAJOR, trans_a, trans_b, m, n, k, alpha, a.data, a.step, b.data, b.step, beta, c.data, c.step);
}

/* In place over one row of scores; columns where keep is 0 get probability 0. */
static void softmax_row(real *p, int64_t n, int64_t skip, const uint8_t *keep) {
  real top = -INFINITY, total = 0;
  if (keep)
    for (int64_t j = skip; j < n; j++) p[j] = keep[j - skip] ? p[j] : -INFINITY;
  for (int64_t j = 0; j < n; j++) top = p[j] > top ? p[j] : top;
  for (int64_t j = 0; j < n; j++) p[j] = fast_exp(p[j] - top);
  for (int64_t j = 0; j < n; j++) total += p[j];
  real scale = 1 / total;
  for (int64_t j = 0; j < n; j++) p[j] *= scale;
}

int ty_attention(ty_tensor *y, ty_tensor *p, const ty_tensor *q, const ty_tensor *k, const ty_tensor *v, const ty_tensor *mask,
                 const ty_tensor *memory_k, const ty_tensor *memory_v, double scale) {
  const char *op = "attention";
  if (q->ndim != 4 || k->ndim != 4) return ty_fail("%s: q and k must be (B, H, T, D), got %s and %s", op, ty_shape_text(q), ty_shape_text(k));
  int64_t B = q->shape[0], H = q->shape[1], T = q->shape[2], D = q->shape[3], S = k->shape[2];
  TY_TRY(check_heads(op, "q", q, B, H, D));
  TY_TRY(check_heads(op, "k", k, B, H, D));
  TY_TRY(check_heads(op, "v", v, B, H, D));
  TY_TRY(check_heads(op, "y", y, B, H, D));
  if (v->shape[2] != S || y->shape[2] != T) return ty_fail("%s: k %s and v %s must have equal lengths", op, ty_shape_text(k), ty_shape_text(v));
  if (mask) {
    TY_TRY(ty_check_dense(op, "mask", mask, TY_U8, 2));
    if (mask->shape[0] != T || mask->shape[1] != S)
      return ty_fail("%s: mask must be (%lld, %lld), got %s", op, (long long)T, (long long)S, ty_shape_text(mask));
  }
  int64_t M = 0;
  if (memory_k || memory_v) {
    if (!memory_k || !memory_v) return ty_fail("%s: memory needs both keys and values", op);
    M = memory_k->shape[1];
    for (int i = 0; i < 2; i++) {
      const ty_tensor *t = i ? memory_v : memory_k;
      TY_TRY(ty_check_real(op, "memory", t));
      if (t->ndim != 3 || t->shape[0] != H || t->shape[1] != M || t->shape[2] != D || t->stride[2] != 1)
        return ty_fail("%s: memory must be (%lld, M, %lld) for keys and values alike, got %s", op, (long long)H, (long long)D, ty_shape_text(t));
    }
  }
  int64_t columns = M + S;
  TY_TRY(ty_check_dense(op, "p", p, TY_REAL, 4));
  if (p->shape[0] != B || p->shape[1] != H || p->shape[2] != T || p->shape[3] != columns)
    return ty_fail("%s: p must be (%lld, %lld, %lld, %lld), got %s", op, (long long)B, (long long)H, (long long)T, (long long)columns,
                   ty_shape_text(p));
  if (columns == 0) return ty_fail("%s: there are no keys to attend to", op);
  const uint8_t *keep = mask ? mask->data : NULL;
  /* Single queries meet the shared memory in one product per head instead of one per sequence. */
  int together = M > 0 && T == 1;
  if (together) {
#pragma omp parallel for schedule(static)
    for (int64_t h = 0; h < H; h++) {
      rows queries = {rows_of(q, 0, h).data, (int)q->stride[0]}, scores = {rows_of(p, 0, h).data, (int)p->stride[0]};
      multiply(scores, (int)B, (int)M, (int)D, (real)scale, queries, NO_TRANS, memory_of(memory_k, h), TRANS, 0);
    }
  }
#pragma omp parallel for schedule(static) if (B * H * T * columns * D >= TY_PARALLEL)
  for (int64_t i = 0; i < B * H; i++) {
    int64_t b = i / H, h = i % H;
    rows scores = rows_of(p, b, h), queries = rows_of(q, b, h), out = rows_of(y, b, h);
    rows own = {scores.data + M, scores.step};
    if (M && !together) multiply(scores, (int)T, (int)M, (int)D, (real)scale, queries, NO_TRANS, memory_of(memory_k, h), TRANS, 0);
    multiply(own, (int)T, (int)S, (int)D, (real)scale, queries, NO_TRANS, rows_of(k, b, h), TRANS, 0);
    for (int64_t t = 0; t < T; t++) softmax_row(scores.data + t * columns, columns, M, keep ? keep + t * S : NULL);
    multiply(out, (int)T, (int)D, (int)S, 1, own, NO_TRANS, rows_of(v, b, h), NO_TRANS, 0);
    if (M && !together) multiply(out, (int)T, (int)D, (int)M, 1, scores, NO_TRANS, memory_of(memory_v, h), NO_TRANS, 1);
  }
  if (together) {
#pragma omp parallel for schedule(static)
    for (int64_t h = 0; h < H; h++) {
      rows scores = {rows_of(p, 0, h).data, (int)p->stride[0]}, out = {rows_of(y, 0, h).data, (int)y->stride[0]};
      multiply(out, (int)B, (int)D, (int)M, 1, scores, NO_TRANS, memory_of(memory_v, h), NO_TRANS, 1);
    }
  }
  return 0;
}

int ty_attention_back(ty_tensor *dq, ty_tensor *dk, ty_tensor *dv, const ty_tensor *dy, const ty_tensor *p, const ty_tensor *q,
                      const ty_tensor *k, const ty_tensor *v, double scale) {
  const char *op = "attention backward";
  if (q->ndim != 4 || k->ndim != 4) return ty_fail("%s: q and k must be (B, H, T, D), got %s and %s", op, ty_shape_text(q), ty_shape_text(k));
  int64_t B = q->shape[0], H = q->shape[1], T = q->shape[2], D = q->shape[3], S = k->shape[2];
  const ty_tensor *all[] = {dq, dk, dv, dy, q, k, v};
  const char *const names[] = {"dq", "dk", "dv", "dy", "q", "k", "v"};
  for (int i = 0; i < 7; i++) TY_TRY(check_heads(op, names[i], all[i], B, H, D));
  TY_TRY(ty_check_dense(op, "p", p, TY_REAL, 4));
  if (p->shape[3] != S) return ty_fail("%s: p %s does not fit k %s; memory has no gradient", op, ty_shape_text(p), ty_shape_text(k));
  int64_t bytes = B * H * T * S * (int64_t)sizeof(real);
  real *scores = ty_alloc(bytes);
  if (!scores) return ty_fail("%s: out of memory for %lld bytes", op, (long long)bytes);
#pragma omp parallel for schedule(static) if (B * H * T * S * D >= TY_PARALLEL)
  for (int64_t i = 0; i < B * H; i++) {
    int64_t b = i / H, h = i % H;
    rows ds = {scores + i * T * S, (int)S}, probability = rows_of(p, b, h), upstream = rows_of(dy, b, h);
    multiply(rows_of(dv, b, h), (int)S, (int)D, (int)T, 1, probability, TRANS, upstream, NO_TRANS, 0);
    multiply(ds, (int)T, (int)S, (int)D, 1, upstream, NO_TRANS, rows_of(v, b, h), TRANS, 0);
    for (int64_t t = 0; t < T; t++) {
      real *g = ds.data + t * S, dot = 0;
      const real *row = probability.data + t * S;
      for (int64_t j = 0; j < S; j++) dot += g[j] * row[j];
      for (int64_t j = 0; j < S; j++) g[j] = row[j] * (g[j] - dot);
    }
    multiply(rows_of(dq, b, h), (int)T, (int)D, (int)S, (real)scale, ds, NO_TRANS, rows_of(k, b, h), NO_TRANS, 0);
    multiply(rows_of(dk, b, h), (int)S, (int)D, (int)T, (real)scale, ds, TRANS, rows_of(q, b, h), NO_TRANS, 0);
  }
  ty_free(scores, bytes);
  return 0;
}
