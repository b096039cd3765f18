/* Reductions: sums over any dims, and softmax, normalisation and maximum over the last one, a block for each row. The order of every sum follows
 * from the shape alone. */
#include "device.h"

/* ---- sum ----
 * A block sums for `outputs` elements of y with `lanes` threads each, over one segment of the reduced elements; where there are several
 * segments their sums are joined by a second kernel. Threads next to each other read memory next to each other: along the reduced elements,
 * or across outputs when columns are summed. */

enum { SEGMENT = 64 }; /* reduced elements of a thread, summed in float; joined in double */

struct sum_shape { int outputs, lanes, across; int64_t length, segments; };

static __device__ inline int64_t offset_of(int64_t i, int n, const int64_t *shape, const int64_t *stride) {
  if (n == 1) return i * stride[0];
  int64_t offset = 0;
  for (int d = n - 1; d >= 0; d--) {
    offset += i % shape[d] * stride[d];
    i /= shape[d];
  }
  return offset;
}

template <class T> __global__ void k_sum(real *y, double *partial, const T *x, ty_dims kept, ty_dims reduced, sum_shape s) {
  __shared__ double part[THREADS];
  int t = threadIdx.x, o = s.across ? t % s.outputs : t / s.lanes, lane = s.across ? t / s.outputs : t % s.lanes;
  int64_t k = (int64_t)blockIdx.x * s.outputs + o, start = blockIdx.y * s.length, end = start + s.length;
  if (end > reduced.total) end = reduced.total;
  real sum = 0;
  if (k < kept.total) {
    const T *from = x + offset_of(k, kept.n, kept.shape, kept.stride);
    for (int64_t r = start + lane; r < end; r += s.lanes) sum += (real)from[offset_of(r, reduced.n, reduced.shape, reduced.stride)];
  }
  part[o * s.lanes + lane] = sum;
  for (int step = s.lanes / 2; step > 0; step /= 2) {
    __syncthreads();
    if (lane < step) part[o * s.lanes + lane] += part[o * s.lanes + lane + step];
  }
  if (lane != 0 || k >= kept.total) return;
  double total = part[o * s.lanes];
  if (s.segments > 1) partial[blockIdx.y * kept.total + k] = total;
  else y[offset_of(k, kept.n, kept.shape, kept.out)] = (real)total;
}

__global__ void k_join_sums(real *y, const double *partial, ty_dims kept, int64_t segments) {
  int64_t k = thread_index();
  if (k >= kept.total) return;
  double total = 0;
  for (int64_t s = 0; s < segments; s++) total += partial[s * kept.total + k];
  y[offset_of(k, kept.n, kept.shape, kept.out)] = (real)total;
}

static sum_shape shape_of(const ty_dims *kept, const ty_dims *reduced) {
  sum_shape s = {};
  s.across = kept->n && kept->stride[kept->n - 1] == 1;
  s.lanes = s.across ? THREADS / WARP : THREADS;
  while (s.lanes > 1 && s.lanes > reduced->total) s.lanes /= 2;
  s.outputs = THREADS / s.lanes;
  s.length = (int64_t)s.lanes * SEGMENT;
  while (divide_up(reduced->total, s.length) > 32768) s.length *= 2;
  s.segments = divide_up(reduced->total, s.length);
  if (s.segments < 1) s.segments = 1; /* an empty sum is 0 */
  return s;
}

int ty_sum(ty_tensor *y, const ty_tensor *x) {
  ty_dims kept, reduced;
  TY_TRY(ty_accept_sum(&kept, &reduced, y, x));
  if (kept.total == 0) return 0;
  sum_shape s = shape_of(&kept, &reduced);
  scratch<double> partial(s.segments > 1 ? s.segments * kept.total : 1);
  TY_TRY(partial.missing("sum"));
  dim3 grid((unsigned)divide_up(kept.total, s.outputs), (unsigned)s.segments);
  TY_TRY(for_type(x->dtype, [&](auto *type) {
    return launch("sum", k_sum<TYPE_OF(type)>, grid, dim3(THREADS), y->data, partial.data, x->data, kept, reduced, s);
  }));
  return s.segments > 1 ? launch_each("sum", k_join_sums, kept.total, (real *)y->data, partial.data, kept, s.segments) : 0;
}

/* ---- along the last dim ---- */

/* The first index of the largest element; a NaN counts as largest. */
__global__ void k_max(real *y, int64_t *index, const real *x, ty_tensor shape, int64_t columns) {
  const real *row = x + offset_of(blockIdx.x, shape.ndim - 1, shape.shape, shape.stride);
  int64_t step = shape.ndim ? shape.stride[shape.ndim - 1] : 1, place = columns;
  real top = -INFINITY;
  int nan = 0;
  for (int64_t j = threadIdx.x; j < columns; j += blockDim.x) {
    top = top < row[j * step] ? row[j * step] : top;
    nan |= row[j * step] != row[j * step];
  }
  top = block_reduce<largest_of>(top);
  nan = block_sum(nan);
  for (int64_t j = threadIdx.x; j < columns && place == columns; j += blockDim.x)
    if (nan ? row[j * step] != row[j * step] : row[j * step] == top) place = j;
  place = -block_reduce<largest_of>(-place);
  if (threadIdx.x) return;
  y[blockIdx.x] = row[place * step];
  index[blockIdx.x] = place;
}

int ty_max(ty_tensor *y, ty_tensor *index, const ty_tensor *x) {
  ty_matrix m;
  TY_TRY(ty_accept_max(&m, y, index, x));
  return launch("max", k_max, dim3((unsigned)m.rows), dim3(THREADS), y->data, index->data, x->data, *x, m.columns);
}

__global__ void k_softmax(real *y, const real *x, int64_t columns) {
  const real *in = x + blockIdx.x * columns;
  real *out = y + blockIdx.x * columns, top = -INFINITY, sum = 0;
  for (int64_t j = threadIdx.x; j < columns; j += blockDim.x) top = largest_of::of(top, in[j]);
  top = block_reduce<largest_of>(top);
  for (int64_t j = threadIdx.x; j < columns; j += blockDim.x) sum += out[j] = expf(in[j] - top);
  real scale = 1 / block_sum(sum);
  for (int64_t j = threadIdx.x; j < columns; j += blockDim.x) out[j] *= scale;
}

int ty_softmax(ty_tensor *y, const ty_tensor *x) {
  ty_matrix m;
  TY_TRY(ty_accept_softmax(&m, y, x));
  return launch("softmax", k_softmax, dim3((unsigned)m.rows), dim3(THREADS), y->data, x->data, m.columns);
}

__global__ void k_softmax_back(real *dx, const real *dy, const real *y, int64_t columns) {
  const real *g = dy + blockIdx.x * columns, *p = y + blockIdx.x * columns;
  real dot = 0;
  for (int64_t j = threadIdx.x; j < columns; j += blockDim.x) dot += g[j] * p[j];
  dot = block_sum(dot);
  for (int64_t j = threadIdx.x; j < columns; j += blockDim.x) dx[blockIdx.x * columns + j] = p[j] * (g[j] - dot);
}

int ty_softmax_back(ty_tensor *dx, const ty_tensor *dy, const ty_tensor *y) {
  ty_matrix m;
  TY_TRY(ty_accept_softmax_back(&m, dx, dy, y));
  return launch("softmax backward", k_softmax_back, dim3((unsigned)m.rows), dim3(THREADS), dx->data, dy->data, y->data, m.columns);
}

__global__ void k_normalize(real *y, real *norm, const real *x, int64_t columns, real eps) {
  const real *in = x + blockIdx.x * columns;
  real square = 0;
  for (int64_t j = threadIdx.x; j < columns; j += blockDim.x) square += in[j] * in[j];
  real length = sqrtf(block_sum(square)), scale = 1 / (length < eps ? eps : length);
  for (int64_t j = threadIdx.x; j < columns; j += blockDim.x) y[blockIdx.x * columns + j] = in[j] * scale;
  if (threadIdx.x == 0) norm[blockIdx.x] = length;
}

int ty_normalize(ty_tensor *y, ty_tensor *norm, const ty_tensor *x, double eps) {
  ty_matrix m;
  TY_TRY(ty_accept_normalize(&m, y, norm, x));
  return launch("normalize", k_normalize, dim3((unsigned)m.rows), dim3(THREADS), y->data, norm->data, x->data, m.columns, eps);
}

__global__ void k_normalize_back(real *dx, const real *dy, const real *y, const real *norm, int64_t columns, real eps) {
  const real *g = dy + blockIdx.x * columns, *p = y + blockIdx.x * columns;
  real length = norm[blockIdx.x], dot = 0;
  bool constant = length < eps; /* the divisor does not depend on x */
  for (int64_t j = threadIdx.x; j < columns; j += blockDim.x) dot += g[j] * p[j];
  dot = block_sum(dot);
  if (constant) dot = 0;
  real scale = 1 / (constant ? eps : length);
  for (int64_t j = threadIdx.x; j < columns; j += blockDim.x) dx[blockIdx.x * columns + j] = (g[j] - p[j] * dot) * scale;
}

int ty_normalize_back(ty_tensor *dx, const ty_tensor *dy, const ty_tensor *y, const ty_tensor *norm, double eps) {
  ty_matrix m;
  TY_TRY(ty_accept_normalize_back(&m, dx, dy, y, norm));
  return launch("normalize backward", k_normalize_back, dim3((unsigned)m.rows), dim3(THREADS), dx->data, dy->data, y->data, norm->data,
                m.columns, eps);
}
