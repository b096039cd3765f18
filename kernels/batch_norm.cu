/* Batch norm with the residual sum and the ReLU that follow it in a ResNet. Variances are sums of squares about a mean, or about a value among those
 * that are summed, never differences of large numbers; blocks of rows are joined in order. */
#include "rows.h"

/* ---- forward ---- */

/* parts[block][channel] = sum of the block's rows, and sum of their squared distances from the block's own mean. */
template <class T, int N> __global__ void k_moments(float2 *parts, const T *x, rows m) {
  walk w = walk_of<N>(m);
  real pivot[N] = {}, sum[N] = {}, squares[N] = {};
  if (w.first < w.end) {
    packet<T, N> p = packet_at<N>(x + w.first * m.channels + w.channel);
    for (int j = 0; j < N; j++) pivot[j] = (real)p.of[j];
  }
  for_rows(m, w, [&](int64_t i) { return packet_at<N>(x + i); }, [&](int64_t, const packet<T, N> &in) {
    for (int j = 0; j < N; j++) {
      real d = (real)in.of[j] - pivot[j];
      sum[j] += d;
      squares[j] += d * d;
    }
  });
  real count = rows_from(w.first, w.end);
  for (int j = 0; j < N && count > 0; j++) {
    squares[j] -= sum[j] * (sum[j] / count);
    sum[j] += count * pivot[j];
  }
  pairs<N> p = share_pairs<N>(m, sum, squares);
  if (p.channel < 0) return;
  real total = 0, about = 0;
  int64_t start = w.first - threadIdx.y;
  for (unsigned i = 0; i < blockDim.y; i++) total += p.at(i).x;
  real mean = total / (real)(w.end - start);
  for (unsigned i = 0; i < blockDim.y && start + i < w.end; i++) {
    real own = rows_from(start + i, w.end), distance = p.at(i).x / own - mean;
    about += p.at(i).y + own * distance * distance;
  }
  parts[blockIdx.x * m.channels + p.channel] = make_float2(total, about);
}

/* A block for each channel joins the blocks' moments: Chan et al. 1983. */
__global__ void k_statistics(real *mean, real *rstd, real *scale, real *running_mean, real *running_var, const float2 *parts,
                             const real *weight, rows m, double momentum, double eps) {
  int64_t c = blockIdx.x;
  double sum = 0, squares = 0;
  for (int64_t b = threadIdx.x; b < m.blocks; b += blockDim.x) sum += parts[b * m.channels + c].x;
  double centre = m.count ? block_sum(sum) / (double)m.count : 0;
  for (int64_t b = threadIdx.x; b < m.blocks; b += blockDim.x) {
    double count = (double)(b + 1 < m.blocks ? m.block_rows : m.count - b * m.block_rows);
    float2 part = parts[b * m.channels + c];
    double distance = part.x / count - centre;
    squares += part.y + count * distance * distance;
  }
  squares = block_sum(squares);
  if (threadIdx.x) return;
  mean[c] = (real)centre;
  rstd[c] = (real)(1 / sqrt((m.count ? squares / (double)m.count : 0) + eps));
  scale[c] = weight[c] * rstd[c];
  if (m.count == 0) return;
  if (running_mean) running_mean[c] += (real)(momentum * (centre - running_mean[c]));
  if (running_var) running_var[c] += (real)(momentum * (squares / (double)(m.count - 1) - running_var[c]));
}

__global__ void k_eval_scale(real *scale, const real *weight, const real *var, int64_t channels, double eps) {
  int64_t c = thread_index();
  if (c < channels) scale[c] = (real)(weight[c] / sqrt((double)var[c] + eps));
}

/* y = act((x - mean) * scale + bias + residual). NaN passes the ReLU. */
template <class T, int N>
__global__ void k_scale(T *y, const T *x, const real *mean, const real *scale, const real *bias, const T *residual, int relu, rows m) {
  struct operands { packet<T, N> x, residual; };
  walk w = walk_of<N>(m);
  real centre[N], factor[N], offset[N];
  take_channels<N>(centre, mean, w);
  take_channels<N>(factor, scale, w);
  take_channels<N>(offset, bias, w);
  for_rows(m, w, [&](int64_t i) {
    operands in = {packet_at<N>(x + i), {}};
    if (residual) in.residual = packet_at<N>(residual + i);
    return in;
  }, [&](int64_t i, const operands &in) {
    packet<T, N> out;
    for (int j = 0; j < N; j++) {
      real v = ((real)in.x.of[j] - centre[j]) * factor[j] + offset[j];
      if (residual) v += (real)in.residual.of[j];
      out.of[j] = relu && v < 0 ? 0.0f : v;
    }
    put_packet(y + i, out);
  });
}

static int scaled(const char *op, ty_tensor *y, const ty_tensor *x, const ty_tensor *mean, const real *scale, const ty_tensor *bias,
                  const ty_tensor *residual, int relu, ty_matrix m) {
  const void *added = residual ? residual->data : NULL;
  return for_type_and_packets(x->dtype, m.columns, {y->data, x->data, added}, [&](auto *type, auto n) {
    constexpr int N = COUNT_OF(n);
    rows r = rows_of(m, N);
    return launch(op, k_scale<TYPE_OF(type), N>, rows_grid(r, N), rows_block(r, N), y->data, x->data, mean->data, scale, bias->data, added, relu, r);
  });
}

int ty_batch_norm(ty_tensor *y, ty_tensor *mean, ty_tensor *rstd, ty_tensor *running_mean, ty_tensor *running_var, const ty_tensor *x,
                  const ty_tensor *weight, const ty_tensor *bias, const ty_tensor *residual, int relu, double momentum, double eps) {
  const char *op = "batch_norm";
  ty_matrix m;
  TY_TRY(ty_accept_batch_norm(&m, y, mean, rstd, running_mean, running_var, x, weight, bias, residual));
  scratch<real> scale(m.columns);
  TY_TRY(scale.missing(op));
  TY_TRY(for_type_and_packets(x->dtype, m.columns, {x->data}, [&](auto *type, auto n) {
    constexpr int N = COUNT_OF(n);
    rows r = rows_of(m, N);
    scratch<float2> parts(r.blocks * m.columns);
    TY_TRY(parts.missing(op));
    TY_TRY(launch(op, k_moments<TYPE_OF(type), N>, rows_grid(r, N), rows_block(r, N), parts.data, x->data, r));
    return launch(op, k_statistics, dim3((unsigned)m.columns), dim3(THREADS), mean->data, rstd->data, scale.data,
                  running_mean ? running_mean->data : NULL, running_var ? running_var->data : NULL, parts.data, weight->data, r, momentum, eps);
  }));
  return scaled(op, y, x, mean, scale.data, bias, residual, relu, m);
}

int ty_batch_norm_eval(ty_tensor *y, const ty_tensor *x, const ty_tensor *weight, const ty_tensor *bias, const ty_tensor *running_mean,
                       const ty_tensor *running_var, const ty_tensor *residual, int relu, double eps) {
  const char *op = "batch_norm_eval";
  ty_matrix m;
  TY_TRY(ty_accept_batch_norm_eval(&m, y, x, weight, bias, running_mean, running_var, residual));
  scratch<real> scale(m.columns);
  TY_TRY(scale.missing(op));
  TY_TRY(launch_each(op, k_eval_scale, m.columns, scale.data, weight->data, running_var->data, m.columns, eps));
  return scaled(op, y, x, running_mean, scale.data, bias, residual, relu, m);
}

/* ---- backward ---- */

/* What both passes read; y: the result where a residual was added, NULL where the ReLU's mask follows from x. */
template <class T> struct sources { const T *dy, *x, *y; const real *mean, *weight, *rstd, *bias; int relu; };
template <class T, int N> struct operands_back { packet<T, N> dy, x, y; };

template <class T, int N> struct gradient {
  const sources<T> &of;
  real mean[N], scale[N], bias[N];
  __device__ gradient(const sources<T> &s, walk w) : of(s) {
    take_channels<N>(mean, s.mean, w);
    take_channels<N>(scale, s.weight, w);
    take_channels<N>(bias, s.bias, w);
    for (int j = 0; j < N; j++) scale[j] *= w.end ? s.rstd[w.channel + j] : 0;
  }
  __device__ operands_back<T, N> read(int64_t i) const {
    operands_back<T, N> in = {packet_at<N>(of.dy + i), packet_at<N>(of.x + i), {}};
    if (of.relu && of.y) in.y = packet_at<N>(of.y + i);
    return in;
  }
  /* dy where the ReLU let through, else 0. */
  __device__ real through(const operands_back<T, N> &in, int j) const {
    if (!of.relu) return (real)in.dy.of[j];
    real result = of.y ? (real)in.y.of[j] : ((real)in.x.of[j] - mean[j]) * scale[j] + bias[j];
    return result > 0 ? (real)in.dy.of[j] : 0;
  }
};

/* passed [opt] = d, what passed the ReLU; parts[block][channel] = sum of d, and of d * (x - mean). */
template <class T, int N> __global__ __launch_bounds__(THREADS, 2) void k_gradients(float2 *parts, T *passed, sources<T> s, rows m) {
  walk w = walk_of<N>(m);
  gradient<T, N> g(s, w);
  real sum[N] = {}, product[N] = {};
  for_rows(m, w, [&](int64_t i) { return g.read(i); }, [&](int64_t i, const operands_back<T, N> &in) {
    packet<T, N> out;
    for (int j = 0; j < N; j++) {
      real d = g.through(in, j);
      out.of[j] = d;
      sum[j] += d;
      product[j] += d * ((real)in.x.of[j] - g.mean[j]);
    }
    if (passed) put_packet(passed + i, out);
  });
  add_pairs<N>(parts, m, sum, product);
}

/* What the second pass multiplies with: dx = d * scale - shift - (x - mean) * slope. */
struct slopes { real *shift, *slope; };

__global__ void k_slopes(slopes out, real *dweight, real *dbias, const float2 *parts, const real *weight, const real *rstd, rows m, int fixed) {
  int64_t c = blockIdx.x;
  double sum = 0, product = 0, share = fixed || m.count == 0 ? 0 : 1 / (double)m.count;
  for (int64_t b = threadIdx.x; b < m.blocks; b += blockDim.x) {
    sum += parts[b * m.channels + c].x;
    product += parts[b * m.channels + c].y;
  }
  sum = block_sum(sum);
  product = block_sum(product);
  if (threadIdx.x) return;
  double s = rstd[c], scale = weight[c] * s;
  dbias[c] = (real)sum;
  dweight[c] = (real)(product * s);
  out.shift[c] = (real)(scale * sum * share);
  out.slope[c] = (real)(scale * s * s * product * share);
}

template <class T, int N> __global__ __launch_bounds__(THREADS, 2) void k_input_gradients(T *dx, sources<T> s, slopes of, rows m) {
  walk w = walk_of<N>(m);
  gradient<T, N> g(s, w);
  real shift[N], slope[N];
  take_channels<N>(shift, of.shift, w);
  take_channels<N>(slope, of.slope, w);
  for_rows(m, w, [&](int64_t i) { return g.read(i); }, [&](int64_t i, const operands_back<T, N> &in) {
    packet<T, N> out;
    for (int j = 0; j < N; j++) out.of[j] = g.through(in, j) * g.scale[j] - shift[j] - ((real)in.x.of[j] - g.mean[j]) * slope[j];
    put_packet(dx + i, out);
  });
}

int ty_batch_norm_back(ty_tensor *dx, ty_tensor *dweight, ty_tensor *dbias, ty_tensor *dresidual, const ty_tensor *dy, const ty_tensor *x,
                       const ty_tensor *y, const ty_tensor *weight, const ty_tensor *bias, const ty_tensor *mean, const ty_tensor *rstd, int relu,
                       int fixed) {
  const char *op = "batch_norm_back";
  ty_matrix m;
  TY_TRY(ty_accept_batch_norm_back(&m, dx, dweight, dbias, dresidual, dy, x, y, weight, bias, mean, rstd));
  scratch<real> constants(2 * m.columns);
  TY_TRY(constants.missing(op));
  const slopes of = {constants.data, constants.data + m.columns};
  void *result = y ? y->data : NULL, *passed = dresidual ? dresidual->data : NULL;
  return for_type_and_packets(x->dtype, m.columns, {dx->data, dy->data, x->data, result, passed}, [&](auto *type, auto n) {
    typedef TYPE_OF(type) T;
    constexpr int N = COUNT_OF(n);
    const sources<T> s = {(const T *)dy->data, (const T *)x->data, (const T *)result, (const real *)mean->data, (const real *)weight->data,
                          (const real *)rstd->data, (const real *)bias->data, relu};
    rows r = rows_of(m, N);
    scratch<float2> parts(r.blocks * m.columns);
    TY_TRY(parts.missing(op));
    TY_TRY(launch(op, k_gradients<T, N>, rows_grid(r, N), rows_block(r, N), parts.data, passed, s, r));
    TY_TRY(launch(op, k_slopes, dim3((unsigned)m.columns), dim3(THREADS), of, dweight->data, dbias->data, parts.data, weight->data, rstd->data, r,
                  fixed));
    sources<T> again = s;
    if (passed) again.dy = (const T *)passed, again.relu = 0; /* one tensor to read instead of two */
    return launch(op, k_input_gradients<T, N>, rows_grid(r, N), rows_block(r, N), dx->data, again, of, r);
  });
}
