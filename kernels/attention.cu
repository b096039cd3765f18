/* Softmax attention over strided heads: scores and sums by matmul, scale, mask and softmax in one kernel over the scores. Shapes are the header's:
 * q, y (B,H,T,D); k, v (B,H,S,D); p (B,H,T,M+S); memory (H,M,D). */
#include "device.h"

/* ---- views ---- */

/* t's shape and strides over other memory, which holds reals. */
static ty_tensor as_real(const ty_tensor *t, void *data) {
  ty_tensor wide = *t;
  wide.data = data, wide.dtype = TY_REAL;
  return wide;
}

/* Columns first to first + size of p. */
static ty_tensor columns_of(const ty_tensor *p, int64_t first, int64_t size) {
  ty_tensor part = *p;
  part.data = (char *)p->data + first * p->stride[3] * ty_dtype_size(p->dtype);
  part.shape[3] = size;
  return part;
}

/* memory (H,M,D) for every one of B sequences. */
static ty_tensor repeated(const ty_tensor *memory, int64_t B) {
  ty_tensor t = *memory;
  t.ndim = 4;
  for (int i = 3; i > 0; i--) t.shape[i] = memory->shape[i - 1], t.stride[i] = memory->stride[i - 1];
  t.shape[0] = B, t.stride[0] = 0;
  return t;
}

/* (B,H,1,D) as (H,B,D): single queries meet the shared memory in one product per head instead of one per sequence. */
static ty_tensor by_head(const ty_tensor *t) {
  ty_tensor rows = *t;
  rows.ndim = 3;
  rows.shape[0] = t->shape[1], rows.stride[0] = t->stride[1];
  rows.shape[1] = t->shape[0], rows.stride[1] = t->stride[0];
  rows.shape[2] = t->shape[3], rows.stride[2] = t->stride[3];
  return rows;
}

/* y = a b + beta y for queries a or probabilities a, and a memory b of the header's shape or its transpose. */
static int multiply_memory(ty_tensor *y, const ty_tensor *a, const ty_tensor *b, double beta) {
  if (y->shape[2] == 1) {
    ty_tensor rows = by_head(y), queries = by_head(a);
    return ty_matmul(&rows, &queries, b, beta);
  }
  ty_tensor all = repeated(b, y->shape[0]);
  return ty_matmul(y, a, &all, beta);
}

/* ---- softmax: a block for each row, in float32; the scores of 16-bit heads are float32 beside their probabilities, others are in place ---- */

template <class P>
__global__ void k_masked_softmax(P *p, real *scores, const uint8_t *mask, int64_t T, int64_t M, int64_t S, real scale) {
  int64_t columns = M + S;
  real *row = scores + blockIdx.x * columns, top = -INFINITY, sum = 0;
  const uint8_t *keep = mask ? mask + blockIdx.x % T * S - M : NULL;
  for (int64_t j = threadIdx.x; j < columns; j += blockDim.x) {
    row[j] = keep && j >= M && !keep[j] ? -INFINITY : row[j] * scale;
    top = largest_of::of(top, row[j]);
  }
  top = block_reduce<largest_of>(top);
  for (int64_t j = threadIdx.x; j < columns; j += blockDim.x) sum += row[j] = expf(row[j] - top);
  real share = 1 / block_sum(sum);
  for (int64_t j = threadIdx.x; j < columns; j += blockDim.x) p[blockIdx.x * columns + j] = row[j] * share;
}

template <class P> __global__ void k_score_gradients(P *ds, const real *dp, const P *p, int64_t columns, real scale) {
  const real *g = dp + blockIdx.x * columns;
  const P *row = p + blockIdx.x * columns;
  real dot = 0;
  for (int64_t j = threadIdx.x; j < columns; j += blockDim.x) dot += g[j] * (real)row[j];
  dot = block_sum(dot);
  for (int64_t j = threadIdx.x; j < columns; j += blockDim.x) ds[blockIdx.x * columns + j] = scale * (real)row[j] * (g[j] - dot);
}

enum { ROW_THREADS = 128 }; /* sequences are short */

int ty_attention(ty_tensor *y, ty_tensor *p, const ty_tensor *q, const ty_tensor *k, const ty_tensor *v, const ty_tensor *mask,
                 const ty_tensor *memory_k, const ty_tensor *memory_v, double scale) {
  ty_heads s;
  TY_TRY(ty_accept_attention(&s, y, p, q, k, v, mask, memory_k, memory_v));
  scratch<real> wide(p->dtype == TY_REAL ? 0 : ty_numel(p));
  TY_TRY(wide.missing("attention"));
  ty_tensor scores = as_real(p, p->dtype == TY_REAL ? p->data : wide.data);
  ty_tensor own = columns_of(&scores, s.M, s.S), seen = columns_of(&scores, 0, s.M), kt = transposed(k);
  TY_TRY(ty_matmul(&own, q, &kt, 0));
  if (s.M) {
    ty_tensor memory = transposed(memory_k);
    TY_TRY(multiply_memory(&seen, q, &memory, 0));
  }
  TY_TRY(for_type(p->dtype, [&](auto *type) {
    return launch("attention", k_masked_softmax<TYPE_OF(type)>, dim3((unsigned)(s.B * s.H * s.T)), dim3(ROW_THREADS), p->data, scores.data,
                  mask ? mask->data : NULL, s.T, s.M, s.S, scale);
  }));
  own = columns_of(p, s.M, s.S), seen = columns_of(p, 0, s.M);
  TY_TRY(ty_matmul(y, &own, v, 0));
  return s.M ? multiply_memory(y, &seen, memory_v, 1) : 0;
}

int ty_attention_back(ty_tensor *dq, ty_tensor *dk, ty_tensor *dv, const ty_tensor *dy, const ty_tensor *p, const ty_tensor *q,
                      const ty_tensor *k, const ty_tensor *v, double scale) {
  const char *op = "attention backward";
  ty_heads s;
  TY_TRY(ty_accept_attention_back(&s, dq, dk, dv, dy, p, q, k, v));
  scratch<real> wide(ty_numel(p));
  scratch<char> narrow(p->dtype == TY_REAL ? 0 : ty_numel(p) * ty_dtype_size(p->dtype));
  TY_TRY(wide.missing(op) || narrow.missing(op));
  ty_tensor dp = as_real(p, wide.data), ds = *p, pt = transposed(p), vt = transposed(v);
  ds.data = p->dtype == TY_REAL ? (void *)wide.data : narrow.data;
  TY_TRY(ty_matmul(dv, &pt, dy, 0));
  TY_TRY(ty_matmul(&dp, dy, &vt, 0));
  TY_TRY(for_type(p->dtype, [&](auto *type) {
    return launch(op, k_score_gradients<TYPE_OF(type)>, dim3((unsigned)(s.B * s.H * s.T)), dim3(ROW_THREADS), ds.data, dp.data, p->data, s.S,
                  scale);
  }));
  TY_TRY(ty_matmul(dq, &ds, k, 0));
  ty_tensor dst = transposed(&ds);
  return ty_matmul(dk, &dst, q, 0);
}
