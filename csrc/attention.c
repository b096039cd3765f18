/* Softmax attention over strided heads: scores and sums by BLAS, mask and softmax in one pass over the scores. Shapes are the header's:
 * q, y (B,H,T,D); k, v (B,H,S,D); p (B,H,T,M+S); memory (H,M,D). */
#include "accept.h"
#include "blas.h"
#include "fast_math.h"
#include <limits.h>

/* Rows of one (batch, head): pointer and distance between rows. */
typedef struct rows { real *data; int step; } rows;

static rows rows_of(const ty_tensor *t, int64_t batch, int64_t head) {
  int64_t n = t->ndim;
  real *data = (real *)t->data + (n == 4 ? batch * t->stride[0] : 0) + head * t->stride[n - 3];
  return (rows){data, (int)(t->shape[n - 2] > 1 ? t->stride[n - 2] : t->shape[n - 1] > 1 ? t->shape[n - 1] : 1)};
}
/* Row 0 of every sequence for one head, of a tensor that passes apart(). */
static rows sequences_of(const ty_tensor *t, int64_t head) {
  rows r = rows_of(t, 0, head);
  if (t->shape[0] > 1) r.step = (int)t->stride[0];
  return r;
}
/* Whether sequences are far enough apart in memory to serve as the rows of a matrix. */
static int apart(const ty_tensor *t) { return t->shape[0] <= 1 || (t->stride[0] >= t->shape[3] && t->stride[0] <= INT_MAX); }

/* Multiplications of one thread between two looks at whether the result is still wanted. */
static const double SLICE = 2e8;

/* a (m,k) times b (n,k)^T, or b (k,n) when plain; some rows at a time where it takes long. */
static void multiply(rows c, int m, int n, int k, real alpha, rows a, int trans_a, rows b, int trans_b, real beta) {
  double fitting = SLICE / ((double)n * k + 1);
  int slice = fitting < 1 ? 1 : fitting < m ? (int)fitting : m;
  for (int i = 0; i < m && !ty_is_unwanted(); i += slice)
    GEMM(ROW_MAJOR, trans_a, trans_b, m - i < slice ? m - i : slice, n, k, alpha, a.data + (trans_a == TRANS ? i : (int64_t)i * a.step), a.step,
         b.data, b.step, beta, c.data + (int64_t)i * c.step, c.step);
}

/* Below this length the set-up of a vector reduction costs more than it saves. */
enum { SHORT_ROW = 16 };

static real largest(const real *p, int64_t n) {
  real top = -INFINITY;
  if (n < SHORT_ROW) {
    for (int64_t j = 0; j < n; j++) top = p[j] > top ? p[j] : top;
    return top;
  }
#pragma omp simd reduction(max : top)
  for (int64_t j = 0; j < n; j++) top = p[j] > top ? p[j] : top;
  return top;
}
static real sum(const real *p, int64_t n) {
  real total = 0;
  if (n < SHORT_ROW) {
    for (int64_t j = 0; j < n; j++) total += p[j];
    return total;
  }
#pragma omp simd reduction(+ : total)
  for (int64_t j = 0; j < n; j++) total += p[j];
  return total;
}

/* In place over one row of scores; columns where keep is 0 get probability 0. */
static void softmax_row(real *p, int64_t n, int64_t skip, const uint8_t *keep) {
  if (keep)
    for (int64_t j = skip; j < n; j++) p[j] = keep[j - skip] ? p[j] : -INFINITY;
  real top = largest(p, n);
  for (int64_t j = 0; j < n; j++) p[j] = fast_exp(p[j] - top);
  real scale = 1 / sum(p, n);
  for (int64_t j = 0; j < n; j++) p[j] *= scale;
}

int ty_attention(ty_tensor *y, ty_tensor *p, const ty_tensor *q, const ty_tensor *k, const ty_tensor *v, const ty_tensor *mask,
                 const ty_tensor *memory_k, const ty_tensor *memory_v, double scale) {
  ty_heads size;
  TY_TRY(ty_accept_attention(&size, y, p, q, k, v, mask, memory_k, memory_v));
  int64_t B = size.B, H = size.H, T = size.T, S = size.S, M = size.M, D = size.D, columns = M + S;
  const uint8_t *keep = mask ? mask->data : NULL;
  /* Single queries meet the shared memory in one product per head instead of one per sequence. */
  int together = M > 0 && T == 1 && apart(q) && apart(y);
  if (together) {
#pragma omp parallel for schedule(static)
    for (int64_t h = 0; h < H; h++) {
      rows scores = {(real *)p->data + h * columns, (int)(H * columns)};
      multiply(scores, (int)B, (int)M, (int)D, (real)scale, sequences_of(q, h), NO_TRANS, rows_of(memory_k, 0, h), TRANS, 0);
    }
  }
#pragma omp parallel for schedule(static) if (B * H * T * columns * D >= TY_PARALLEL)
  for (int64_t i = 0; i < B * H; i++) {
    int64_t b = i / H, h = i % H;
    rows scores = {(real *)p->data + i * T * columns, (int)columns}, queries = rows_of(q, b, h), out = rows_of(y, b, h);
    rows own = {scores.data + M, scores.step};
    if (M && !together) multiply(scores, (int)T, (int)M, (int)D, (real)scale, queries, NO_TRANS, rows_of(memory_k, 0, h), TRANS, 0);
    multiply(own, (int)T, (int)S, (int)D, (real)scale, queries, NO_TRANS, rows_of(k, b, h), TRANS, 0);
    for (int64_t t = 0; t < T && !ty_is_unwanted(); t++) softmax_row(scores.data + t * columns, columns, M, keep ? keep + t * S : NULL);
    multiply(out, (int)T, (int)D, (int)S, 1, own, NO_TRANS, rows_of(v, b, h), NO_TRANS, 0);
    if (M && !together) multiply(out, (int)T, (int)D, (int)M, 1, scores, NO_TRANS, rows_of(memory_v, 0, h), NO_TRANS, 1);
  }
  if (together) {
#pragma omp parallel for schedule(static)
    for (int64_t h = 0; h < H; h++) {
      rows scores = {(real *)p->data + h * columns, (int)(H * columns)};
      multiply(sequences_of(y, h), (int)B, (int)D, (int)M, 1, scores, NO_TRANS, rows_of(memory_v, 0, h), NO_TRANS, 1);
    }
  }
  return 0;
}

int ty_attention_back(ty_tensor *dq, ty_tensor *dk, ty_tensor *dv, const ty_tensor *dy, const ty_tensor *p, const ty_tensor *q,
                      const ty_tensor *k, const ty_tensor *v, double scale) {
  ty_heads size;
  TY_TRY(ty_accept_attention_back(&size, dq, dk, dv, dy, p, q, k, v));
  int64_t B = size.B, H = size.H, T = size.T, S = size.S, D = size.D;
  int64_t bytes = B * H * T * S * (int64_t)sizeof(real);
  real *scores = ty_alloc(bytes);
  if (!scores) return ty_fail("attention backward: out of memory for %lld bytes", (long long)bytes);
#pragma omp parallel for schedule(static) if (B * H * T * S * D >= TY_PARALLEL)
  for (int64_t i = 0; i < B * H; i++) {
    int64_t b = i / H, h = i % H;
    rows ds = {scores + i * T * S, (int)S}, probability = {(real *)p->data + i * T * S, (int)S}, upstream = rows_of(dy, b, h);
    multiply(rows_of(dv, b, h), (int)S, (int)D, (int)T, 1, probability, TRANS, upstream, NO_TRANS, 0);
    multiply(ds, (int)T, (int)S, (int)D, 1, upstream, NO_TRANS, rows_of(v, b, h), TRANS, 0);
    for (int64_t t = 0; t < T && !ty_is_unwanted(); t++) {
      real *g = ds.data + t * S, dot = 0;
      const real *row = probability.data + t * S;
#pragma omp simd reduction(+ : dot)
      for (int64_t j = 0; j < S; j++) dot += g[j] * row[j];
#pragma omp simd
      for (int64_t j = 0; j < S; j++) g[j] = row[j] * (g[j] - dot);
    }
    multiply(rows_of(dq, b, h), (int)T, (int)D, (int)S, (real)scale, ds, NO_TRANS, rows_of(k, b, h), NO_TRANS, 0);
    multiply(rows_of(dk, b, h), (int)S, (int)D, (int)T, (real)scale, ds, TRANS, rows_of(q, b, h), NO_TRANS, 0);
  }
  ty_free(scores, bytes);
  return 0;
}
