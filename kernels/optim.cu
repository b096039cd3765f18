/* Optimiser updates: one launch over weights, moments and gradients of all parameters, in memory order; and dynamic loss scaling. Whether a step
 * is skipped, by what gradients are divided, and the learning rate are read from the device's memory: the host never waits to know it. */
#include "packet.h"

enum { EACH = 64, SHARE = THREADS * EACH, MOST = 256 }; /* elements of a thread and of a block; parameters of a launch */
constexpr int PACKET = WIDE / sizeof(real);

/* Arguments of a kernel, so that nothing need be copied to the device. first: each parameter's first block. packets: all four are read in packets. */
struct parameter { real *w, *m, *v; const real *g; int64_t n, number; unsigned first; bool packets; };
struct table { int count; unsigned blocks; parameter of[MOST]; };

/* The next parameters of the list that fit into a table; *at moves past them. */
static table next_table(const ty_parameter *list, int64_t count, int64_t *at) {
  table t;
  t.count = 0, t.blocks = 0;
  for (; *at < count && t.count < MOST; ++*at) {
    const ty_parameter *p = &list[*at];
    int64_t n = ty_numel(p->w);
    real *w = (real *)p->w->data, *m = p->m ? (real *)p->m->data : NULL, *v = p->v ? (real *)p->v->data : NULL, *g = (real *)p->g->data;
    t.of[t.count++] = {w, m, v, g, n, p->number, t.blocks, are_packets<real>(n, {w, m, v, g})};
    t.blocks += (unsigned)divide_up(n, SHARE);
  }
  return t;
}

/* The parameter of this thread block. */
static __device__ inline int parameter_of(const table &t) {
  int low = 0, high = t.count;
  while (high - low > 1) {
    int middle = (low + high) / 2;
    if (t.of[middle].first <= blockIdx.x) low = middle;
    else high = middle;
  }
  return low;
}

/* f(i, N) for each packet of N elements, from element i of parameter p on, that is this thread's. */
template <int N, class F> static __device__ inline void each_packet(const parameter &p, F f) {
  int64_t start = (int64_t)(blockIdx.x - p.first) * SHARE + threadIdx.x * N;
  for (int e = 0; e < EACH / N; e++) {
    int64_t i = start + (int64_t)e * THREADS * N;
    if (i >= p.n) return;
    f(i, std::integral_constant<int, N>());
  }
}
template <class F> static __device__ inline void each(const parameter &p, F f) {
  if (p.packets) each_packet<PACKET>(p, f);
  else each_packet<1>(p, f);
}

static const real *data_of(const ty_tensor *t) { return t ? (const real *)t->data : NULL; }

/* ---- Adam ---- */

struct adam { const double *lr; double beta1, beta2, decay; real b1, b2, rest1, rest2, eps, l2; };
struct rate { real size, root, shrink; }; /* of the step, with the corrections for moments that began at 0; and what weights keep */

__global__ void k_adam_rates(rate *rates, int64_t *steps, const real *overflow, LARGE_ARGUMENT(table) t, adam a) {
  int64_t i = thread_index();
  if (i >= t.count || (overflow && *overflow != 0)) return;
  double step = (double)++steps[t.of[i].number];
  rates[i] = {(real)(*a.lr / (1 - pow(a.beta1, step))), (real)(1 / sqrt(1 - pow(a.beta2, step))), (real)(1 - *a.lr * a.decay)};
}

__global__ void k_adam(const rate *rates, const real *scale, const real *overflow, LARGE_ARGUMENT(table) t, adam a) {
  if (overflow && *overflow != 0) return;
  int at = parameter_of(t);
  const parameter &p = t.of[at];
  rate r = rates[at];
  real unscale = scale ? 1 / *scale : 1;
  each(p, [&](int64_t i, auto n) {
    constexpr int N = COUNT_OF(n);
    auto w = packet_at<N>(p.w + i), m = packet_at<N>(p.m + i), v = packet_at<N>(p.v + i), g = packet_at<N>(p.g + i);
    for (int j = 0; j < N; j++) {
      real gradient = g.of[j] * unscale + a.l2 * w.of[j];
      m.of[j] = a.b1 * m.of[j] + a.rest1 * gradient;
      v.of[j] = a.b2 * v.of[j] + a.rest2 * gradient * gradient;
      w.of[j] = r.shrink * w.of[j] - r.size * m.of[j] / (sqrtf(v.of[j]) * r.root + a.eps);
    }
    put_packet(p.m + i, m);
    put_packet(p.v + i, v);
    put_packet(p.w + i, w);
  });
}

int ty_adam(const ty_parameter *list, int64_t count, ty_tensor *steps, const ty_tensor *scale, const ty_tensor *overflow,
            const ty_tensor *lr, double beta1, double beta2, double eps, double weight_decay, int decoupled) {
  TY_TRY(ty_accept_step("adam", list, count, 2, steps, scale, overflow, lr));
  adam a;
  a.lr = (const double *)lr->data, a.beta1 = beta1, a.beta2 = beta2, a.decay = decoupled ? weight_decay : 0, a.eps = (real)eps;
  a.b1 = (real)beta1, a.b2 = (real)beta2, a.rest1 = (real)(1 - beta1), a.rest2 = (real)(1 - beta2);
  a.l2 = decoupled ? 0 : (real)weight_decay;
  scratch<rate> rates(MOST);
  TY_TRY(rates.missing("adam"));
  for (int64_t at = 0; at < count;) {
    table t = next_table(list, count, &at);
    TY_TRY(launch_each("adam", k_adam_rates, t.count, rates.data, steps->data, data_of(overflow), t, a));
    TY_TRY(launch("adam", k_adam, dim3(t.blocks), dim3(THREADS), rates.data, data_of(scale), data_of(overflow), t, a));
  }
  return 0;
}

/* ---- SGD ---- */

__global__ void k_count(int64_t *steps, const real *overflow, LARGE_ARGUMENT(table) t) {
  int64_t i = thread_index();
  if (i < t.count && !(overflow && *overflow != 0)) steps[t.of[i].number]++;
}

__global__ void k_sgd(const real *scale, const real *overflow, LARGE_ARGUMENT(table) t, const double *lr, real momentum, real decay) {
  if (overflow && *overflow != 0) return;
  const parameter &p = t.of[parameter_of(t)];
  real unscale = scale ? 1 / *scale : 1, rate = (real)*lr;
  each(p, [&](int64_t i, auto n) {
    constexpr int N = COUNT_OF(n);
    auto w = packet_at<N>(p.w + i), g = packet_at<N>(p.g + i), m = momentum != 0 ? packet_at<N>(p.m + i) : packet<real, N>();
    for (int j = 0; j < N; j++) {
      m.of[j] = momentum * m.of[j] + g.of[j] * unscale + decay * w.of[j];
      w.of[j] -= rate * m.of[j];
    }
    if (momentum != 0) put_packet(p.m + i, m);
    put_packet(p.w + i, w);
  });
}

int ty_sgd(const ty_parameter *list, int64_t count, ty_tensor *steps, const ty_tensor *scale, const ty_tensor *overflow,
           const ty_tensor *lr, double momentum, double weight_decay) {
  TY_TRY(ty_accept_step("sgd", list, count, momentum != 0, steps, scale, overflow, lr));
  for (int64_t at = 0; at < count;) {
    table t = next_table(list, count, &at);
    TY_TRY(launch_each("sgd", k_count, t.count, steps->data, data_of(overflow), t));
    TY_TRY(launch("sgd", k_sgd, dim3(t.blocks), dim3(THREADS), data_of(scale), data_of(overflow), t, (const double *)lr->data, momentum, weight_decay));
  }
  return 0;
}

/* ---- dynamic loss scaling ---- */

__global__ void k_find_overflow(real *overflow, LARGE_ARGUMENT(table) t) {
  const parameter &p = t.of[parameter_of(t)];
  bool found = false;
  each(p, [&](int64_t i, auto n) {
    auto g = packet_at<COUNT_OF(n)>(p.g + i);
    for (real v : g.of) found |= !(v - v == 0);
  });
  if (found) *overflow = 1; /* by many threads, all the same */
}

int ty_find_overflow(ty_tensor *overflow, const ty_parameter *list, int64_t count) {
  TY_TRY(ty_accept_overflow(overflow, list, count));
  TY_TRY(ty_fill(overflow, 0));
  for (int64_t at = 0; at < count;) {
    table t = next_table(list, count, &at);
    TY_TRY(launch("find_overflow", k_find_overflow, dim3(t.blocks), dim3(THREADS), overflow->data, t));
  }
  return 0;
}

__global__ void k_update_scale(real *scale, int64_t *counts, const real *overflow, real growth, real backoff, int64_t interval) {
  if (threadIdx.x) return;
  if (*overflow != 0) {
    *scale *= backoff;
    counts[0] = 0;
    counts[1]++;
    counts[2]++;
    return;
  }
  counts[1] = 0;
  if (++counts[0] < interval) return;
  real larger = *scale * growth;
  if (larger - larger == 0) *scale = larger;
  counts[0] = 0;
}

int ty_update_scale(ty_tensor *scale, ty_tensor *counts, const ty_tensor *overflow, double growth, double backoff, int64_t interval) {
  TY_TRY(ty_accept_update_scale(scale, counts, overflow));
  return launch("update_scale", k_update_scale, dim3(1), dim3(WARP), scale->data, counts->data, overflow->data, growth, backoff, interval);
}
