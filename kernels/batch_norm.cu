/* Batch norm with what follows it in a ResNet: the residual sum and the ReLU, or the ReLU and max pooling. Variances are sums of squares about a
 * mean, or about a value among those that are summed, never differences of large numbers; blocks of rows are joined in order. */
#include "rows.h"
#include "window.h"

/* ---- statistics ---- */

/* parts[block][channel] = sum of the block's rows, and sum of their squared distances from the block's own mean. */
template <class T, int N> __global__ void k_moments(float2 *parts, const T *x, rows m) {
  walk w = walk_of<N>(m);
  real pivot[N] = {}, sum[N] = {}, squares[N] = {};
  if (w.first < w.end) {
    packet<T, N> p = packet_at<N>(x + w.first * m.channels + w.channel);
    for (int j = 0; j < N; j++) pivot[j] = (real)p.of[j];
  }
  for_rows(m, w, [&](int64_t i, int64_t) { return packet_at<N>(x + i); }, [&](int64_t, const packet<T, N> &in) {
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
__global__ void k_statistics(real *mean, real *rstd, real *running_mean, real *running_var, const float2 *parts, rows m, double momentum, double eps) {
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
  if (m.count == 0) return;
  if (running_mean) running_mean[c] += (real)(momentum * (centre - running_mean[c]));
  if (running_var) running_var[c] += (real)(momentum * (squares / (double)(m.count - 1) - running_var[c]));
}

int ty_batch_norm_statistics(ty_tensor *mean, ty_tensor *rstd, ty_tensor *running_mean, ty_tensor *running_var, const ty_tensor *x, double momentum,
                             double eps) {
  const char *op = "batch_norm";
  ty_matrix m;
  TY_TRY(ty_accept_statistics(&m, mean, rstd, running_mean, running_var, x));
  return for_type_and_packets(x->dtype, m.columns, {x->data}, [&](auto *type, auto n) {
    constexpr int N = COUNT_OF(n);
    rows r = rows_of(m, N);
    scratch<float2> parts(r.blocks * m.columns);
    TY_TRY(parts.missing(op));
    TY_TRY(launch(op, k_moments<TYPE_OF(type), N>, rows_grid(r, N), rows_block(r, N), parts.data, x->data, r));
    return launch(op, k_statistics, dim3((unsigned)m.columns), dim3(THREADS), mean->data, rstd->data, running_mean ? running_mean->data : NULL,
                  running_var ? running_var->data : NULL, parts.data, r, momentum, eps);
  });
}

__global__ void k_rstd(real *rstd, const real *var, int64_t channels, double eps) {
  int64_t c = thread_index();
  if (c < channels) rstd[c] = (real)(1 / sqrt((double)var[c] + eps));
}

int ty_batch_norm_rstd(ty_tensor *rstd, const ty_tensor *var, double eps) {
  const char *op = "batch_norm";
  TY_TRY(ty_accept_rstd(rstd, var));
  return launch_each(op, k_rstd, ty_numel(var), rstd->data, var->data, ty_numel(var), eps);
}

/* ---- forward ---- */

struct vectors { const real *mean, *rstd, *weight, *bias; };
static vectors vectors_of(const ty_tensor *mean, const ty_tensor *rstd, const ty_tensor *weight, const ty_tensor *bias) {
  return {(const real *)mean->data, (const real *)rstd->data, (const real *)weight->data, (const real *)bias->data};
}

/* What is done to N channels from one on; to none where that is negative. */
template <int N> struct affine {
  real mean[N], scale[N], bias[N];
  __device__ affine(const vectors &v, int64_t channel) {
    for (int j = 0; j < N; j++) {
      mean[j] = channel < 0 ? 0 : v.mean[channel + j];
      scale[j] = channel < 0 ? 0 : v.weight[channel + j] * v.rstd[channel + j];
      bias[j] = channel < 0 ? 0 : v.bias[channel + j];
    }
  }
  __device__ real of(real x, int j) const { return (x - mean[j]) * scale[j] + bias[j]; }
};

static __device__ inline real activated(int relu, real v) { return relu && v < 0 ? 0.0f : v; } /* NaN passes */

template <class T, int N> __global__ void k_normalize(T *y, const T *x, const T *residual, vectors v, int relu, rows m) {
  struct operands { packet<T, N> x, residual; };
  walk w = walk_of<N>(m);
  affine<N> a(v, channel_of(w));
  for_rows(m, w, [&](int64_t i, int64_t) {
    operands in = {packet_at<N>(x + i), {}};
    if (residual) in.residual = packet_at<N>(residual + i);
    return in;
  }, [&](int64_t i, const operands &in) {
    packet<T, N> out;
    for (int j = 0; j < N; j++) {
      real result = a.of((real)in.x.of[j], j);
      if (residual) result += (real)in.residual.of[j];
      out.of[j] = activated(relu, result);
    }
    put_packet(y + i, out);
  });
}

int ty_batch_norm(ty_tensor *y, const ty_tensor *x, const ty_tensor *mean, const ty_tensor *rstd, const ty_tensor *weight, const ty_tensor *bias,
                  const ty_tensor *residual, int relu) {
  const char *op = "batch_norm";
  ty_matrix m;
  TY_TRY(ty_accept_batch_norm(&m, y, x, mean, rstd, weight, bias, residual));
  const void *second = residual ? residual->data : NULL;
  return for_type_and_packets(x->dtype, m.columns, {y->data, x->data, second}, [&](auto *type, auto n) {
    constexpr int N = COUNT_OF(n);
    rows r = rows_of(m, N);
    return launch(op, k_normalize<TYPE_OF(type), N>, rows_grid(r, N), rows_block(r, N), y->data, x->data, second,
                  vectors_of(mean, rstd, weight, bias), relu, r);
  });
}

/* The values that windows share are computed for each of them, which costs less than to store them. */
template <class T, int N> __global__ void k_normalize_pool(T *y, uint8_t *index, const T *x, int64_t total, vectors v, int relu, window s) {
  int64_t i = thread_index();
  if (i >= total) return;
  const spot at = spot_of<N>(i, s);
  affine<N> a(v, at.channel);
  pool_at<N>(y, index, x, i, at, s, [&](const packet<T, N> &in, int j) { return activated(relu, a.of((real)in.of[j], j)); });
}

int ty_batch_norm_pool(ty_tensor *y, ty_tensor *index, const ty_tensor *x, const ty_tensor *mean, const ty_tensor *rstd, const ty_tensor *weight,
                       const ty_tensor *bias, int relu, int kernel, int stride, int padding) {
  const char *op = "batch_norm";
  TY_TRY(ty_accept_batch_norm_pool(y, index, x, mean, rstd, weight, bias, kernel, stride, padding));
  return for_type_and_packets(x->dtype, x->shape[1], {y->data, index->data, x->data}, [&](auto *type, auto n) {
    int64_t total = ty_numel(y) / COUNT_OF(n);
    return launch_each(op, k_normalize_pool<TYPE_OF(type), COUNT_OF(n)>, total, y->data, index->data, x->data, total,
                       vectors_of(mean, rstd, weight, bias), relu, window_of(x, y, kernel, stride, padding, COUNT_OF(n)));
  });
}

/* ---- backward ---- */

/* The gradient of the result as it comes: a tensor, the sum of two, or what a tensor is before the pooling that followed. AT_ONCE: rows that are read
 * before the first is worked on, as many as registers hold. IN_DX: so much arithmetic that dx holds it from the first pass to the second. */
template <class T> struct direct {
  enum { AT_ONCE = AHEAD, IN_DX = false };
  const T *dy;
  template <int N> __device__ packet<T, N> read(int64_t i, int64_t) const { return packet_at<N>(dy + i); }
  template <int N> static __device__ real value(const packet<T, N> &in, int j) { return (real)in.of[j]; }
};
template <class T> struct added {
  enum { AT_ONCE = AHEAD / 2, IN_DX = false };
  const T *dy, *more;
  template <int N> struct both { packet<T, N> dy, more; };
  template <int N> __device__ both<N> read(int64_t i, int64_t) const { return {packet_at<N>(dy + i), packet_at<N>(more + i)}; }
  template <int N> static __device__ real value(const both<N> &in, int j) { return (real)in.dy.of[j] + (real)in.more.of[j]; }
};
template <class T> struct pooled {
  enum { AT_ONCE = AHEAD / 2, IN_DX = true };
  const T *dy;
  const uint8_t *index;
  window s;
  template <int N> __device__ packet<T, N> read(int64_t i, int64_t pixel) const {
    return pool_back_at<N>(dy, index, pixel, (int)(i - pixel * s.packets * N), s);
  }
  template <int N> static __device__ real value(const packet<T, N> &in, int j) { return (real)in.of[j]; }
};

/* What both passes read; y: the result where a residual was added, NULL where the ReLU's mask follows from x. */
template <class T, class From> struct sources { From from; const T *x, *y; vectors v; int relu; };

template <class T, class From, int N> struct gradient {
  const sources<T, From> &of;
  affine<N> a;
  __device__ gradient(const sources<T, From> &s, walk w) : of(s), a(s.v, channel_of(w)) {}
  struct operands { decltype(of.from.template read<N>(0, 0)) dy; packet<T, N> x, y; };
  __device__ operands read(int64_t i, int64_t row) const {
    operands in = {of.from.template read<N>(i, row), packet_at<N>(of.x + i), {}};
    if (of.relu && of.y) in.y = packet_at<N>(of.y + i);
    return in;
  }
  /* The gradient where the ReLU let through, else 0. */
  __device__ real through(const operands &in, int j) const {
    real d = From::template value<N>(in.dy, j);
    if (!of.relu) return d;
    return (of.y ? (real)in.y.of[j] : a.of((real)in.x.of[j], j)) > 0 ? d : 0;
  }
};

/* passed [opt] = d, what passed the ReLU; parts[block][channel] = sum of d, and of d * (x - mean). */
template <class T, class From, int N>
__global__ __launch_bounds__(THREADS, 2) void k_gradients(float2 *parts, T *passed, sources<T, From> s, rows m) {
  walk w = walk_of<N>(m);
  gradient<T, From, N> g(s, w);
  real sum[N] = {}, product[N] = {};
  for_rows<From::AT_ONCE>(m, w, [&](int64_t i, int64_t row) { return g.read(i, row); }, [&](int64_t i, const auto &in) {
    packet<T, N> out;
    for (int j = 0; j < N; j++) {
      real d = g.through(in, j);
      out.of[j] = d;
      sum[j] += d;
      product[j] += d * ((real)in.x.of[j] - g.a.mean[j]);
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

template <class T, class From, int N>
__global__ __launch_bounds__(THREADS, 2) void k_input_gradients(T *dx, sources<T, From> s, slopes of, rows m) {
  walk w = walk_of<N>(m);
  gradient<T, From, N> g(s, w);
  real shift[N], slope[N];
  take_channels<N>(shift, of.shift, w);
  take_channels<N>(slope, of.slope, w);
  for_rows<From::AT_ONCE>(m, w, [&](int64_t i, int64_t row) { return g.read(i, row); }, [&](int64_t i, const auto &in) {
    packet<T, N> out;
    for (int j = 0; j < N; j++) out.of[j] = g.through(in, j) * g.a.scale[j] - shift[j] - ((real)in.x.of[j] - g.a.mean[j]) * slope[j];
    put_packet(dx + i, out);
  });
}

struct results { ty_tensor *dx, *dweight, *dbias, *dresidual; };

template <int N, class T, class From> static int back(results to, const sources<T, From> &s, ty_matrix m, int fixed) {
  const char *op = "batch_norm_back";
  rows r = rows_of(m, N);
  scratch<real> constants(2 * m.columns);
  scratch<float2> parts(r.blocks * m.columns);
  TY_TRY(constants.missing(op) || parts.missing(op));
  const slopes of = {constants.data, constants.data + m.columns};
  T *dx = (T *)to.dx->data, *passed = to.dresidual ? (T *)to.dresidual->data : From::IN_DX ? dx : NULL;
  TY_TRY(launch(op, k_gradients<T, From, N>, rows_grid(r, N), rows_block(r, N), parts.data, passed, s, r));
  TY_TRY(launch(op, k_slopes, dim3((unsigned)m.columns), dim3(THREADS), of, to.dweight->data, to.dbias->data, parts.data, s.v.weight, s.v.rstd, r,
                fixed));
  if constexpr (!From::IN_DX)
    if (!passed) return launch(op, k_input_gradients<T, From, N>, rows_grid(r, N), rows_block(r, N), dx, s, of, r);
  const sources<T, direct<T>> again = {{passed}, s.x, NULL, s.v, 0}; /* one tensor to read instead of two or three */
  return launch(op, k_input_gradients<T, direct<T>, N>, rows_grid(r, N), rows_block(r, N), dx, again, of, r);
}

int ty_batch_norm_back(ty_tensor *dx, ty_tensor *dweight, ty_tensor *dbias, ty_tensor *dresidual, const ty_tensor *dy, const ty_tensor *more,
                       const ty_tensor *x, const ty_tensor *y, const ty_tensor *weight, const ty_tensor *bias, const ty_tensor *mean,
                       const ty_tensor *rstd, int relu, int fixed) {
  ty_matrix m;
  TY_TRY(ty_accept_batch_norm_back(&m, dx, dweight, dbias, dresidual, dy, more, x, y, weight, bias, mean, rstd));
  const results to = {dx, dweight, dbias, dresidual};
  const vectors v = vectors_of(mean, rstd, weight, bias);
  const void *second = more ? more->data : NULL, *result = y ? y->data : NULL, *passed = dresidual ? dresidual->data : NULL;
  return for_type_and_packets(x->dtype, m.columns, {dx->data, dy->data, second, x->data, result, passed}, [&](auto *type, auto n) {
    typedef TYPE_OF(type) T;
    const T *first = (const T *)dy->data, *in = (const T *)x->data, *out = (const T *)result;
    if (second) return back<COUNT_OF(n)>(to, sources<T, added<T>>{{first, (const T *)second}, in, out, v, relu}, m, fixed);
    return back<COUNT_OF(n)>(to, sources<T, direct<T>>{{first}, in, out, v, relu}, m, fixed);
  });
}

int ty_batch_norm_pool_back(ty_tensor *dx, ty_tensor *dweight, ty_tensor *dbias, const ty_tensor *dy, const ty_tensor *index, const ty_tensor *x,
                            const ty_tensor *weight, const ty_tensor *bias, const ty_tensor *mean, const ty_tensor *rstd, int relu, int fixed,
                            int kernel, int stride, int padding) {
  ty_matrix m;
  TY_TRY(ty_accept_batch_norm_pool_back(&m, dx, dweight, dbias, dy, index, x, weight, bias, mean, rstd, kernel, stride, padding));
  return for_type_and_packets(x->dtype, m.columns, {dx->data, dy->data, index->data, x->data}, [&](auto *type, auto n) {
    typedef TYPE_OF(type) T;
    const pooled<T> from = {(const T *)dy->data, (const uint8_t *)index->data, window_of(x, dy, kernel, stride, padding, COUNT_OF(n))};
    return back<COUNT_OF(n)>({dx, dweight, dbias, NULL}, sources<T, pooled<T>>{from, (const T *)x->data, NULL, vectors_of(mean, rstd, weight, bias), relu},
                             m, fixed);
  });
}
