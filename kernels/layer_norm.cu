/* Layer norm: a block for each row. */
#include "rows.h"

__global__ void k_layer_norm(real *y, real *mean, real *rstd, const real *x, const real *weight, const real *bias, int64_t columns,
                             double eps) {
  const real *in = x + blockIdx.x * columns;
  real near = in[0], sum = 0, squares = 0; /* as on the CPU */
  for (int64_t k = threadIdx.x; k < columns; k += blockDim.x) sum += in[k] - near;
  real centre = near + block_sum(sum) / (real)columns;
  for (int64_t k = threadIdx.x; k < columns; k += blockDim.x) squares += (in[k] - centre) * (in[k] - centre);
  real s = (real)(1 / sqrt(block_sum(squares) / (double)columns + eps));
  for (int64_t k = threadIdx.x; k < columns; k += blockDim.x) y[blockIdx.x * columns + k] = (in[k] - centre) * s * weight[k] + bias[k];
  if (threadIdx.x) return;
  mean[blockIdx.x] = centre;
  rstd[blockIdx.x] = s;
}

int ty_layer_norm(ty_tensor *y, ty_tensor *mean, ty_tensor *rstd, const ty_tensor *x, const ty_tensor *weight, const ty_tensor *bias,
                  double eps) {
  ty_matrix m;
  TY_TRY(ty_accept_layer_norm(&m, y, mean, rstd, x, weight, bias));
  return launch("layer_norm", k_layer_norm, dim3((unsigned)m.rows), dim3(THREADS), y->data, mean->data, rstd->data, x->data, weight->data,
                bias->data, m.columns, eps);
}

__global__ void k_layer_norm_back(real *dx, const real *dy, const real *x, const real *weight, const real *mean, const real *rstd,
                                  int64_t columns) {
  const real *in = x + blockIdx.x * columns, *g = dy + blockIdx.x * columns;
  real centre = mean[blockIdx.x], s = rstd[blockIdx.x], sum = 0, product = 0;
  for (int64_t k = threadIdx.x; k < columns; k += blockDim.x) {
    real d = g[k] * weight[k];
    sum += d;
    product += d * (in[k] - centre) * s;
  }
  sum = block_sum(sum) / (real)columns;
  product = block_sum(product) / (real)columns;
  for (int64_t k = threadIdx.x; k < columns; k += blockDim.x)
    dx[blockIdx.x * columns + k] = s * (g[k] * weight[k] - sum - (in[k] - centre) * s * product);
}

/* parts[block][column] = the block's shares of dweight and dbias. */
template <int N> __global__ void k_shares(float2 *parts, const real *dy, const real *x, const real *mean, const real *rstd, rows m) {
  struct operands { packet<real, N> dy, x; };
  walk w = walk_of<N>(m);
  real first[N] = {}, second[N] = {};
  for_rows(m, w, [&](int64_t i, int64_t) { return operands{packet_at<N>(dy + i), packet_at<N>(x + i)}; }, [&](int64_t i, const operands &in) {
    int64_t r = i / m.channels;
    for (int j = 0; j < N; j++) {
      first[j] += in.dy.of[j] * (in.x.of[j] - mean[r]) * rstd[r];
      second[j] += in.dy.of[j];
    }
  });
  add_pairs<N>(parts, m, first, second);
}

__global__ void k_join_shares(real *dweight, real *dbias, const float2 *parts, int64_t columns, int64_t blocks) {
  int64_t c = thread_index();
  if (c >= columns) return;
  double first = 0, second = 0;
  for (int64_t b = 0; b < blocks; b++) {
    first += parts[b * columns + c].x;
    second += parts[b * columns + c].y;
  }
  dweight[c] = (real)first;
  dbias[c] = (real)second;
}

int ty_layer_norm_back(ty_tensor *dx, ty_tensor *dweight, ty_tensor *dbias, const ty_tensor *dy, const ty_tensor *x,
                       const ty_tensor *weight, const ty_tensor *mean, const ty_tensor *rstd) {
  const char *op = "layer_norm_back";
  ty_matrix m;
  TY_TRY(ty_accept_layer_norm_back(&m, dx, dweight, dbias, dy, x, weight, mean, rstd));
  TY_TRY(launch(op, k_layer_norm_back, dim3((unsigned)m.rows), dim3(THREADS), dx->data, dy->data, x->data, weight->data, mean->data,
                rstd->data, m.columns));
  return for_packets<real>(m.columns, {dy->data, x->data}, [&](auto n) {
    constexpr int N = COUNT_OF(n);
    rows r = rows_of(m, N);
    scratch<float2> parts(r.blocks * m.columns);
    TY_TRY(parts.missing(op));
    TY_TRY(launch(op, k_shares<N>, rows_grid(r, N), rows_block(r, N), parts.data, dy->data, x->data, mean->data, rstd->data, r));
    return launch_each(op, k_join_shares, m.columns, dweight->data, dbias->data, parts.data, m.columns, r.blocks);
  });
}
