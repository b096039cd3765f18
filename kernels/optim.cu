/* Optimiser updates: one pass over weights, moments and gradient, in memory order. */
#include "device.h"

struct adam { real beta1, beta2, rest1, rest2, size, root, eps, l2, shrink; };

__global__ void k_adam(real *w, real *m, real *v, const real *g, int64_t n, adam a) {
  int64_t i = thread_index();
  if (i >= n) return;
  real gradient = g[i] + a.l2 * w[i];
  real first = a.beta1 * m[i] + a.rest1 * gradient, second = a.beta2 * v[i] + a.rest2 * gradient * gradient;
  m[i] = first;
  v[i] = second;
  w[i] = a.shrink * w[i] - a.size * first / (sqrtf(second) * a.root + a.eps);
}

int ty_adam(ty_tensor *w, ty_tensor *m, ty_tensor *v, const ty_tensor *g, double lr, double beta1, double beta2, double eps,
            double weight_decay, int decoupled, int64_t step) {
  TY_TRY(ty_accept_adam(w, m, v, g, step));
  adam a;
  a.beta1 = (real)beta1, a.beta2 = (real)beta2, a.rest1 = (real)(1 - beta1), a.rest2 = (real)(1 - beta2), a.eps = (real)eps;
  a.size = (real)(lr / (1 - pow(beta1, (double)step))), a.root = (real)(1 / sqrt(1 - pow(beta2, (double)step)));
  a.l2 = decoupled ? 0 : (real)weight_decay, a.shrink = decoupled ? (real)(1 - lr * weight_decay) : 1;
  return launch_each("adam", k_adam, ty_numel(w), w->data, m->data, v->data, g->data, ty_numel(w), a);
}

__global__ void k_sgd(real *w, real *velocity, const real *g, int64_t n, real rate, real momentum, real decay, int first) {
  int64_t i = thread_index();
  if (i >= n) return;
  real step = g[i] + decay * w[i];
  if (velocity) step = velocity[i] = first ? step : momentum * velocity[i] + step;
  w[i] -= rate * step;
}

int ty_sgd(ty_tensor *w, ty_tensor *velocity, const ty_tensor *g, double lr, double momentum, double weight_decay, int first) {
  TY_TRY(ty_accept_sgd(w, velocity, g, momentum));
  void *moving = momentum != 0 ? velocity->data : NULL;
  return launch_each("sgd", k_sgd, ty_numel(w), w->data, moving, g->data, ty_numel(w), lr, momentum, weight_decay, first);
}
