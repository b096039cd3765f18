/* Batch norm (with the residual sum and the ReLU that follow it in a ResNet) and layer norm. Variances are sums of squares about a mean, never
 * differences of large numbers; blocks of rows are joined in order. */
#include "columns.h"

/* ---- batch norm: forward ---- */

/* parts[block][channel] = sum of the block's rows, and sum of their squared distances from the block's own mean. */
template <class T> __global__ void k_moments(float2 *parts, const T *x, ty_matrix m) {
  int64_t c = (int64_t)blockIdx.y * WARP + threadIdx.x, left = m.rows - (int64_t)blockIdx.x * BLOCK_ROWS;
  float2 sum = sum_column(m, c, [&](int64_t r, float2 *s) { s->x += (real)x[r * m.columns + c]; });
  real mean = sum.x / (real)(left < BLOCK_ROWS ? left : (int64_t)BLOCK_ROWS);
  float2 square = sum_column(m, c, [&](int64_t r, float2 *s) {
    real d = (real)x[r * m.columns + c] - mean;
    s->y += d * d;
  });
  if (threadIdx.y == 0 && c < m.columns) parts[blockIdx.x * m.columns + c] = make_float2(sum.x, square.y);
}

/* A block for each channel joins the blocks' moments: Chan et al. 1983. */
__global__ void k_statistics(real *mean, real *rstd, real *scale, real *running_mean, real *running_var, const float2 *parts,
                             const real *weight, ty_matrix m, int64_t blocks, double momentum, double eps) {
  int64_t c = blockIdx.x;
  double sum = 0, squares = 0;
  for (int64_t b = threadIdx.x; b < blocks; b += blockDim.x) sum += parts[b * m.columns + c].x;
  double centre = m.rows ? block_sum(sum) / (double)m.rows : 0;
  for (int64_t b = threadIdx.x; b < blocks; b += blockDim.x) {
    double rows = b + 1 < blocks ? (double)BLOCK_ROWS : (double)(m.rows - b * BLOCK_ROWS);
    float2 part = parts[b * m.columns + c];
    double distance = part.x / rows - centre;
    squares += part.y + rows * distance * distance;
  }
  squares = block_sum(squares);
  if (threadIdx.x) return;
  mean[c] = (real)centre;
  rstd[c] = (real)(1 / sqrt((m.rows ? squares / (double)m.rows : 0) + eps));
  scale[c] = weight[c] * rstd[c];
  if (m.rows == 0) return;
  if (running_mean) running_mean[c] += (real)(momentum * (centre - running_mean[c]));
  if (running_var) running_var[c] += (real)(momentum * (squares / (double)(m.rows - 1) - running_var[c]));
}

__global__ void k_eval_scale(real *scale, const real *weight, const real *var, int64_t channels, double eps) {
  int64_t c = thread_index();
  if (c < channels) scale[c] = (real)(weight[c] / sqrt((double)var[c] + eps));
}

/* y = act((x - mean) * scale + bias + residual). NaN passes the ReLU. */
template <class T>
__global__ void k_scale(T *y, const T *x, const real *mean, const real *scale, const real *bias, const T *residual, int relu, int64_t n,
                        int64_t channels) {
  int64_t i = thread_index();
  if (i >= n) return;
  int64_t c = i % channels;
  real v = ((real)x[i] - mean[c]) * scale[c] + bias[c];
  if (residual) v += (real)residual[i];
  y[i] = relu && v < 0 ? 0.0f : v;
}

static int scaled(const char *op, ty_tensor *y, const ty_tensor *x, const ty_tensor *mean, const real *scale, const ty_tensor *bias,
                  const ty_tensor *residual, int relu, ty_matrix m) {
  return for_type(x->dtype, [&](auto *type) {
    return launch_each(op, k_scale<TYPE_OF(type)>, ty_numel(x), y->data, x->data, mean->data, scale, bias->data,
                       residual ? residual->data : NULL, relu, ty_numel(x), m.columns);
  });
}

int ty_batch_norm(ty_tensor *y, ty_tensor *mean, ty_tensor *rstd, ty_tensor *running_mean, ty_tensor *running_var, const ty_tensor *x,
                  const ty_tensor *weight, const ty_tensor *bias, const ty_tensor *residual, int relu, double momentum, double eps) {
  const char *op = "batch_norm";
  ty_matrix m;
  TY_TRY(ty_accept_batch_norm(&m, y, mean, rstd, running_mean, running_var, x, weight, bias, residual));
  scratch<float2> parts(row_blocks(m) * m.columns);
  scratch<real> scale(m.columns);
  TY_TRY(parts.missing(op));
  TY_TRY(scale.missing(op));
  TY_TRY(for_type(x->dtype, [&](auto *type) {
    return launch(op, k_moments<TYPE_OF(type)>, column_grid(m), column_block(), parts.data, x->data, m);
  }));
  TY_TRY(launch(op, k_statistics, dim3((unsigned)m.columns), dim3(THREADS), mean->data, rstd->data, scale.data,
                running_mean ? running_mean->data : NULL, running_var ? running_var->data : NULL, parts.data, weight->data, m, row_blocks(m),
                momentum, eps));
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

/* ---- batch norm: backward ---- */

/* parts[block][channel] = sum of d, and of d * (x - mean), where d = dy, or dy where y > 0. */
template <class T>
__global__ void k_gradients(float2 *parts, const T *dy, const T *x, const T *y, const real *mean, int relu, ty_matrix m) {
  int64_t c = (int64_t)blockIdx.y * WARP + threadIdx.x;
  real centre = c < m.columns ? mean[c] : 0;
  float2 sum = sum_column(m, c, [&](int64_t r, float2 *s) {
    int64_t i = r * m.columns + c;
    real d = !relu || (real)y[i] > 0 ? (real)dy[i] : 0;
    s->x += d;
    s->y += d * ((real)x[i] - centre);
  });
  if (threadIdx.y == 0 && c < m.columns) parts[blockIdx.x * m.columns + c] = sum;
}

/* What the second pass multiplies with: dx = d * scale - shift - (x - mean) * slope. */
struct slopes { real scale, shift, slope; };

__global__ void k_slopes(slopes *out, real *dweight, real *dbias, const float2 *parts, const real *weight, const real *rstd, ty_matrix m,
                         int64_t blocks, int fixed) {
  int64_t c = blockIdx.x;
  double sum = 0, product = 0, share = fixed || m.rows == 0 ? 0 : 1 / (double)m.rows;
  for (int64_t b = threadIdx.x; b < blocks; b += blockDim.x) {
    sum += parts[b * m.columns + c].x;
    product += parts[b * m.columns + c].y;
  }
  sum = block_sum(sum);
  product = block_sum(product);
  if (threadIdx.x) return;
  double s = rstd[c], scale = weight[c] * s;
  dbias[c] = (real)sum;
  dweight[c] = (real)(product * s);
  out[c] = {(real)scale, (real)(scale * sum * share), (real)(scale * s * s * product * share)};
}

template <class T>
__global__ void k_input_gradients(T *dx, T *dresidual, const T *dy, const T *x, const T *y, const real *mean, const slopes *of, int relu,
                                  int64_t n, int64_t channels) {
  int64_t i = thread_index();
  if (i >= n) return;
  int64_t c = i % channels;
  real d = !relu || (real)y[i] > 0 ? (real)dy[i] : 0;
  if (dresidual) dresidual[i] = d;
  dx[i] = d * of[c].scale - of[c].shift - ((real)x[i] - mean[c]) * of[c].slope;
}

int ty_batch_norm_back(ty_tensor *dx, ty_tensor *dweight, ty_tensor *dbias, ty_tensor *dresidual, const ty_tensor *dy, const ty_tensor *x,
                       const ty_tensor *y, const ty_tensor *weight, const ty_tensor *mean, const ty_tensor *rstd, int relu, int fixed) {
  const char *op = "batch_norm_back";
  ty_matrix m;
  TY_TRY(ty_accept_batch_norm_back(&m, dx, dweight, dbias, dresidual, dy, x, y, weight, mean, rstd));
  scratch<float2> parts(row_blocks(m) * m.columns);
  scratch<slopes> of(m.columns);
  TY_TRY(parts.missing(op));
  TY_TRY(of.missing(op));
  TY_TRY(for_type(x->dtype, [&](auto *type) {
    return launch(op, k_gradients<TYPE_OF(type)>, column_grid(m), column_block(), parts.data, dy->data, x->data, y->data, mean->data, relu, m);
  }));
  TY_TRY(launch(op, k_slopes, dim3((unsigned)m.columns), dim3(THREADS), of.data, dweight->data, dbias->data, parts.data, weight->data,
                rstd->data, m, row_blocks(m), fixed));
  return for_type(x->dtype, [&](auto *type) {
    return launch_each(op, k_input_gradients<TYPE_OF(type)>, ty_numel(x), dx->data, dresidual ? dresidual->data : NULL, dy->data, x->data,
                       y->data, mean->data, of.data, relu, ty_numel(x), m.columns);
  });
}

/* ---- layer norm: a block for each row ---- */

__global__ void k_layer_norm(real *y, real *mean, real *rstd, const real *x, const real *weight, const real *bias, int64_t columns,
                             double eps) {
  const real *in = x + blockIdx.x * columns;
  real sum = 0, squares = 0;
  for (int64_t k = threadIdx.x; k < columns; k += blockDim.x) sum += in[k];
  real centre = block_sum(sum) / (real)columns;
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
__global__ void k_layer_shares(float2 *parts, const real *dy, const real *x, const real *mean, const real *rstd, ty_matrix m) {
  int64_t c = (int64_t)blockIdx.y * WARP + threadIdx.x;
  float2 sum = sum_column(m, c, [&](int64_t r, float2 *s) {
    int64_t i = r * m.columns + c;
    s->x += dy[i] * (x[i] - mean[r]) * rstd[r];
    s->y += dy[i];
  });
  if (threadIdx.y == 0 && c < m.columns) parts[blockIdx.x * m.columns + c] = sum;
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
  scratch<float2> parts(row_blocks(m) * m.columns);
  TY_TRY(parts.missing(op));
  TY_TRY(launch(op, k_layer_norm_back, dim3((unsigned)m.rows), dim3(THREADS), dx->data, dy->data, x->data, weight->data, mean->data,
                rstd->data, m.columns));
  TY_TRY(launch(op, k_layer_shares, column_grid(m), column_block(), parts.data, dy->data, x->data, mean->data, rstd->data, m));
  return launch_each(op, k_join_shares, m.columns, dweight->data, dbias->data, parts.data, m.columns, row_blocks(m));
}
