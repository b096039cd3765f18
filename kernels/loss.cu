/* Cross entropy with integer targets, and of a row's similarities with its partner as the target: a block for each row. A target out of range is a
 * fault: its row counts 0, and the next wait tells. */
#include "device.h"

__global__ void k_cross_entropy(double *losses, real *p, const real *x, const int64_t *target, int64_t classes, fault *f) {
  int64_t row = blockIdx.x, wanted = target[row];
  const real *in = x + row * classes;
  real *out = p + row * classes, top = -INFINITY, sum = 0;
  for (int64_t j = threadIdx.x; j < classes; j += blockDim.x) top = largest_of::of(top, in[j]);
  top = block_reduce<largest_of>(top);
  for (int64_t j = threadIdx.x; j < classes; j += blockDim.x) sum += out[j] = expf(in[j] - top);
  sum = block_sum(sum);
  for (int64_t j = threadIdx.x; j < classes; j += blockDim.x) out[j] *= 1 / sum;
  if (threadIdx.x) return;
  losses[row] = in_range(f, FAULT_TARGET, wanted, classes, row) ? log((double)sum) - ((double)in[wanted] - top) : 0;
}

__global__ void k_mean(real *loss, const double *losses, int64_t rows) {
  double sum = 0;
  for (int64_t r = threadIdx.x; r < rows; r += blockDim.x) sum += losses[r];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *loss = (real)(sum / (double)rows);
}

int ty_cross_entropy(ty_tensor *loss, ty_tensor *p, const ty_tensor *x, const ty_tensor *target) {
  const char *op = "cross_entropy";
  TY_TRY(ty_accept_cross_entropy(loss, p, x, target));
  int64_t rows = x->shape[0], classes = x->shape[1];
  scratch<double> losses(rows);
  TY_TRY(losses.missing(op));
  TY_TRY(launch(op, k_cross_entropy, dim3((unsigned)rows), dim3(THREADS), losses.data, p->data, x->data, target->data, classes,
                device_fault()));
  return launch(op, k_mean, dim3(1), dim3(THREADS), loss->data, losses.data, rows);
}

__global__ void k_cross_entropy_back(real *dx, const real *dloss, const real *p, const int64_t *target, int64_t rows, int64_t classes) {
  int64_t i = thread_index();
  if (i >= rows * classes) return;
  real scale = *dloss / (real)rows;
  dx[i] = (p[i] - (target[i / classes] == i % classes)) * scale;
}

int ty_cross_entropy_back(ty_tensor *dx, const ty_tensor *dloss, const ty_tensor *p, const ty_tensor *target) {
  TY_TRY(ty_accept_cross_entropy_back(dx, dloss, p, target));
  return launch_each("cross_entropy backward", k_cross_entropy_back, ty_numel(p), dx->data, dloss->data, p->data, target->data,
                     p->shape[0], p->shape[1]);
}

/* ---- pairs ---- */

static __device__ inline real raised(real v, real least) { return v < least ? least : v; }

__global__ void k_pair_cross_entropy(double *losses, real *lse, const real *s, int64_t rows, real scale, real least) {
  int64_t row = blockIdx.x;
  const real *in = s + row * rows;
  real top = -INFINITY, sum = 0;
  for (int64_t j = threadIdx.x; j < rows; j += blockDim.x)
    if (j != row) top = largest_of::of(top, raised(in[j], least));
  top = block_reduce<largest_of>(top) * scale;
  for (int64_t j = threadIdx.x; j < rows; j += blockDim.x)
    if (j != row) sum += expf(raised(in[j], least) * scale - top);
  sum = block_sum(sum);
  if (threadIdx.x) return;
  const double log_sum = log((double)sum);
  losses[row] = log_sum - ((double)raised(in[row ^ 1], least) * scale - top);
  lse[row] = (real)(log_sum + top);
}

int ty_pair_cross_entropy(ty_tensor *loss, ty_tensor *lse, const ty_tensor *s, double temperature, double floor) {
  const char *op = "pair_cross_entropy";
  TY_TRY(ty_accept_pair_cross_entropy(op, NULL, loss, lse, s, temperature));
  int64_t rows = s->shape[0];
  scratch<double> losses(rows);
  TY_TRY(losses.missing(op));
  TY_TRY(launch(op, k_pair_cross_entropy, dim3((unsigned)rows), dim3(THREADS), losses.data, lse->data, s->data, rows, 1 / temperature, floor));
  return launch(op, k_mean, dim3(1), dim3(THREADS), loss->data, losses.data, rows);
}

__global__ void k_pair_cross_entropy_back(real *ds, const real *dloss, const real *lse, const real *s, int64_t rows, real scale, real least) {
  int64_t i = thread_index();
  if (i >= rows * rows) return;
  int64_t row = i / rows, j = i % rows;
  real share = *dloss * scale / (real)rows, in = s[i];
  ds[i] = j != row && in >= least ? (expf(in * scale - lse[row]) - (j == (row ^ 1))) * share : 0;
}

int ty_pair_cross_entropy_back(ty_tensor *ds, const ty_tensor *dloss, const ty_tensor *lse, const ty_tensor *s, double temperature, double floor) {
  const char *op = "pair_cross_entropy backward";
  TY_TRY(ty_accept_pair_cross_entropy(op, ds, dloss, lse, s, temperature));
  return launch_each(op, k_pair_cross_entropy_back, ty_numel(s), ds->data, dloss->data, lse->data, s->data, s->shape[0], 1 / temperature, floor);
}
