/* Cross entropy with integer targets: a block for each row. A target out of range is a fault: its row counts 0, and the next wait tells. */
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
