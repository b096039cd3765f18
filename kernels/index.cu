/* Rows by number: gathering and its adjoint. An index out of range is a fault: its row stays as it was, and the next wait tells. */
#include "device.h"

/* Elements of a row, counted row-major, in two tensors. */
struct row_shape { int n; int64_t width, shape[TY_MAX_DIMS], to[TY_MAX_DIMS], from[TY_MAX_DIMS], to_step, from_step; };

static row_shape rows_of(const ty_tensor *to, const ty_tensor *from, int64_t width) {
  row_shape s = {};
  s.width = width;
  s.to_step = to->stride[0], s.from_step = from->stride[0];
  for (int d = 1; d < to->ndim; d++) {
    if (to->shape[d] == 1) continue;
    int last = s.n - 1;
    if (s.n && s.to[last] == to->shape[d] * to->stride[d] && s.from[last] == to->shape[d] * from->stride[d]) s.shape[last] *= to->shape[d];
    else s.shape[last = s.n++] = to->shape[d];
    s.to[last] = to->stride[d], s.from[last] = from->stride[d];
  }
  return s;
}

static __device__ inline void offsets(const row_shape &s, int64_t j, int64_t *to, int64_t *from) {
  *to = *from = 0;
  for (int d = s.n - 1; d >= 0; d--) {
    int64_t at = d ? j % s.shape[d] : j;
    j /= s.shape[d];
    *to += at * s.to[d];
    *from += at * s.from[d];
  }
}

template <class T> __global__ void k_gather(T *y, const T *x, const int64_t *index, int64_t m, int64_t limit, row_shape s, fault *f) {
  int64_t i = thread_index(), row = i / s.width, to, from;
  if (row >= m || !in_range(f, FAULT_INDEX, index[row], limit, row)) return;
  offsets(s, i % s.width, &to, &from);
  y[row * s.to_step + to] = x[index[row] * s.from_step + from];
}

int ty_gather(ty_tensor *y, const ty_tensor *x, const ty_tensor *index) {
  const char *op = "index_select";
  int64_t width, m = ty_numel(index), limit = x->ndim ? x->shape[0] : 0;
  TY_TRY(ty_accept_index(op, x, y, index, &width));
  row_shape s = rows_of(y, x, width);
  int size = ty_dtype_size(x->dtype);
  if (size == 8) return launch_each(op, k_gather<int64_t>, m * width, y->data, x->data, index->data, m, limit, s, device_fault());
  if (size == 4) return launch_each(op, k_gather<int32_t>, m * width, y->data, x->data, index->data, m, limit, s, device_fault());
  if (size == 2) return launch_each(op, k_gather<uint16_t>, m * width, y->data, x->data, index->data, m, limit, s, device_fault());
  return launch_each(op, k_gather<uint8_t>, m * width, y->data, x->data, index->data, m, limit, s, device_fault());
}

/* next[i] = the next position that holds index i's row, m where there is none; -1 - next when an earlier one does. So the sum of each row is
 * taken in order, by the threads of its first position. */
__global__ void k_chain(int64_t *next, const int64_t *index, int64_t m) {
  int64_t i = thread_index();
  if (i >= m) return;
  int64_t at = i + 1;
  bool first = true;
  while (at < m && index[at] != index[i]) at++;
  for (int64_t j = 0; j < i; j++) first = first && index[j] != index[i];
  next[i] = first ? at : -1 - at;
}

__global__ void k_scatter_add(real *dx, const real *dy, const int64_t *index, const int64_t *next, int64_t m, int64_t limit, row_shape s,
                              fault *f) {
  int64_t i = thread_index(), row = i / s.width, to, from;
  if (row >= m || next[row] < 0 || !in_range(f, FAULT_INDEX, index[row], limit, row)) return;
  offsets(s, i % s.width, &to, &from);
  real *place = dx + index[row] * s.to_step + to, sum = *place;
  for (int64_t at = row; at < m; at = next[at] < 0 ? -1 - next[at] : next[at]) sum += dy[at * s.from_step + from];
  *place = sum;
}

int ty_scatter_add(ty_tensor *dx, const ty_tensor *dy, const ty_tensor *index) {
  const char *op = "index_select backward";
  int64_t width, m = ty_numel(index);
  TY_TRY(ty_check_real(op, "dx", dx));
  TY_TRY(ty_accept_index(op, dx, dy, index, &width));
  scratch<int64_t> next(m);
  TY_TRY(next.missing(op));
  TY_TRY(launch_each(op, k_chain, m, next.data, index->data, m));
  return launch_each(op, k_scatter_add, m * width, dx->data, dy->data, index->data, next.data, m, dx->shape[0], rows_of(dx, dy, width),
                     device_fault());
}
