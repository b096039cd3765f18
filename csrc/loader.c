/* Threads that read files, or rows of memory that may be a mapped file, into rows of a tensor while the caller goes on. The plan is fixed at the
 * start: which file into which row, so neither the number of threads nor their timing shows in the result. Every file is tried; errors are kept by
 * file. Knows no data set. */
#define _GNU_SOURCE
#include "image.h"
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct ty_loader {
  ty_tensor y;
  int64_t n, next; /* next: the first file that no thread has taken; atomic */
  int stop;        /* atomic */
  const char **paths;
  int64_t *rows;
  char **errors;
  void *head;
  size_t head_bytes;
  const char *memory; /* where rows are read from instead of files; rows: which */
  size_t row_bytes;
  pthread_mutex_t lock;
  pthread_cond_t done;
  int running; /* threads that still work; under the lock */
  int threads;
  pthread_t *ids;
};

/* ---- one file ---- */

static void *row_of(const ty_tensor *y, int64_t row) { return (char *)y->data + row * y->stride[0] * ty_dtype_size(y->dtype); }

static int load_image(ty_loader *l, ty_decoder *d, ty_resizer *r, const char *path, void *y) {
  const uint8_t *rgb;
  int h, w;
  TY_TRY(ty_decode_image(d, path, &rgb, &h, &w));
  return ty_resample(r, y, (int)l->y.shape[1], (int)l->y.shape[2], rgb, h, w);
}

static int load_record(ty_loader *l, ty_decoder *d, const char *path, void *y) {
  size_t bytes = (size_t)l->y.shape[1] * sizeof(double);
  TY_TRY(ty_read_file(d, path, "an array"));
  if (d->bytes != l->head_bytes + bytes || memcmp(d->file.data, l->head, l->head_bytes))
    return ty_fail("%s: expected an array of %lld numbers with the same header as the first", path, (long long)l->y.shape[1]);
  memcpy(y, d->file.data + l->head_bytes, bytes);
  return 0;
}

static int check_image(ty_decoder *d, const char *path, int64_t *size) {
  int h, w;
  TY_TRY(ty_inspect_image(d, path, &h, &w));
  *size = (int64_t)d->bytes;
  return 0;
}

/* Asks the system to read bytes of a mapping. */
static void read_ahead(const void *data, size_t bytes) {
  uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = (uintptr_t)data, first = start / page * page;
  madvise((void *)first, start + bytes - first, MADV_WILLNEED);
}

static void copy_row(ty_loader *l, int64_t i) {
  const char *from = l->memory + (size_t)l->rows[i] * l->row_bytes;
  read_ahead(from, l->row_bytes); /* in one request, not page by page */
  memcpy(row_of(&l->y, i), from, l->row_bytes);
}

/* ---- threads ---- */

static char out_of_memory[] = "out of memory";

static void work(ty_loader *l) {
  ty_decoder d = {0};
  ty_resizer r = {0};
  while (!__atomic_load_n(&l->stop, __ATOMIC_RELAXED)) {
    int64_t i = __atomic_fetch_add(&l->next, 1, __ATOMIC_RELAXED);
    if (i >= l->n) break;
    if (l->memory) {
      copy_row(l, i);
      continue;
    }
    void *y = row_of(&l->y, l->rows[i]);
    int status = l->y.dtype == TY_U8 ? load_image(l, &d, &r, l->paths[i], y)
               : l->y.dtype == TY_F64 ? load_record(l, &d, l->paths[i], y)
                                      : check_image(&d, l->paths[i], y);
    if (status && !(l->errors[i] = strdup(ty_error()))) l->errors[i] = out_of_memory;
  }
  ty_decoder_free(&d);
  ty_resizer_free(&r);
}

static void *run(void *loader) {
  ty_loader *l = loader;
  work(l);
  pthread_mutex_lock(&l->lock);
  if (--l->running == 0) pthread_cond_broadcast(&l->done);
  pthread_mutex_unlock(&l->lock);
  return NULL;
}

static int cores(void) {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
}

/* Signals are the caller's: its waiting calls must see Ctrl-C. */
static int start_threads(ty_loader *l, int threads) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int reason = 0;
  pthread_mutex_lock(&l->lock);
  for (int i = 0; i < threads && !reason; i++) {
    reason = pthread_create(&l->ids[i], NULL, run, l);
    if (!reason) l->threads = l->running = i + 1;
  }
  pthread_mutex_unlock(&l->lock);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return l->threads > 0 ? 0 : ty_fail("loader: cannot start a thread: %s", strerror(reason));
}

/* ---- the plan ---- */

static int check_plan(const ty_tensor *y, const int64_t *rows, int64_t n) {
  if (y->dtype == TY_U8) TY_TRY(ty_check_rgb("loader", "y", y, 4));
  else if (y->dtype == TY_F64) TY_TRY(ty_check_dense("loader", "y", y, TY_F64, 2));
  else TY_TRY(ty_check_dense("loader", "y", y, TY_I64, 1));
  if (!rows && n > y->shape[0]) return ty_fail("loader: y must have at least %lld rows, got shape %s", (long long)n, ty_shape_text(y));
  for (int64_t i = 0; rows && i < n; i++)
    if (rows[i] < 0 || rows[i] >= y->shape[0])
      return ty_fail("loader: row %lld of file %lld is outside 0..%lld", (long long)rows[i], (long long)i, (long long)y->shape[0] - 1);
  return 0;
}

/* Copies of all that the threads need, in one block behind the pointers. */
static int copy_plan(ty_loader *l, const char *const *paths, const int64_t *rows, const void *head) {
  size_t n = (size_t)l->n, text = 0;
  for (size_t i = 0; paths && i < n; i++) text += strlen(paths[i]) + 1;
  l->rows = malloc(n * sizeof *l->rows + 1);
  l->errors = calloc(n + 1, sizeof *l->errors);
  l->paths = malloc(n * sizeof *l->paths + text + 1);
  l->head = malloc(l->head_bytes + 1);
  if (!l->rows || !l->errors || !l->paths || !l->head) return ty_fail("loader: out of memory for a plan of %lld rows", (long long)l->n);
  for (size_t i = 0; i < n; i++) l->rows[i] = rows ? rows[i] : (int64_t)i;
  if (l->head_bytes) memcpy(l->head, head, l->head_bytes);
  char *at = (char *)(l->paths + n);
  for (size_t i = 0; paths && i < n; i++) {
    l->paths[i] = at;
    at = stpcpy(at, paths[i]) + 1;
  }
  return 0;
}

/* Takes plan's y, n, head_bytes and memory. */
static ty_loader *start(ty_loader plan, const char *const *paths, const int64_t *rows, const void *head, int threads) {
  if (threads > cores()) threads = cores();
  if (threads > plan.n) threads = (int)plan.n;
  ty_loader *l = calloc(1, sizeof *l);
  if (!l) {
    ty_fail("loader: out of memory");
    return NULL;
  }
  *l = plan;
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(&l->done, &attributes);
  pthread_condattr_destroy(&attributes);
  pthread_mutex_init(&l->lock, NULL);
  l->ids = calloc((size_t)(threads > 0 ? threads : 1), sizeof *l->ids);
  int status = l->ids ? copy_plan(l, paths, rows, head) : ty_fail("loader: out of memory");
  if (!status && threads > 0) status = start_threads(l, threads);
  else if (!status) work(l);
  if (!status) return l;
  ty_loader_stop(l);
  return NULL;
}

ty_loader *ty_loader_start(ty_tensor *y, const char *const *paths, const int64_t *rows, int64_t n, const void *head,
                           int64_t head_bytes, int threads) {
  if (check_plan(y, rows, n)) return NULL;
  return start((ty_loader){.y = *y, .n = n, .head_bytes = (size_t)head_bytes}, paths, rows, head, threads);
}

/* index holds rows of x. */
static int check_rows(const char *op, const ty_tensor *x, const ty_tensor *index) {
  TY_TRY(ty_check_dense(op, "x", x, x->dtype, -1));
  TY_TRY(ty_check_dense(op, "index", index, TY_I64, 1));
  for (int64_t i = 0; i < index->shape[0]; i++) {
    int64_t row = ((const int64_t *)index->data)[i];
    if (row < 0 || row >= x->shape[0]) return ty_fail("%s: index %lld is outside 0..%lld", op, (long long)row, (long long)x->shape[0] - 1);
  }
  return 0;
}

static size_t row_bytes(const ty_tensor *x) { return (size_t)(ty_numel(x) / (x->shape[0] > 0 ? x->shape[0] : 1)) * (size_t)ty_dtype_size(x->dtype); }

ty_loader *ty_loader_gather(ty_tensor *y, const ty_tensor *x, const ty_tensor *index, int threads) {
  if (check_rows("loader", x, index) || ty_check_dense("loader", "y", y, x->dtype, x->ndim)) return NULL;
  ty_tensor expected = *x;
  expected.shape[0] = index->shape[0];
  if (!ty_same_shape(y, &expected)) {
    ty_fail("loader: y must have shape %s, got %s", ty_shape_text(&expected), ty_shape_text(y));
    return NULL;
  }
  return start((ty_loader){.y = *y, .n = index->shape[0], .memory = x->data, .row_bytes = row_bytes(x)}, NULL, index->data, NULL, threads);
}

int ty_loader_wait(ty_loader *l, double seconds) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  int64_t nanoseconds = (int64_t)(seconds * 1e9) + until.tv_nsec;
  until.tv_sec += nanoseconds / 1000000000;
  until.tv_nsec = nanoseconds % 1000000000;
  pthread_mutex_lock(&l->lock);
  while (l->running > 0 && pthread_cond_timedwait(&l->done, &l->lock, &until) != ETIMEDOUT) {}
  int finished = l->running == 0;
  pthread_mutex_unlock(&l->lock);
  return finished;
}

const char *ty_loader_error(const ty_loader *l, int64_t i) { return i >= 0 && i < l->n ? l->errors[i] : NULL; }

void ty_loader_stop(ty_loader *l) {
  __atomic_store_n(&l->stop, 1, __ATOMIC_RELAXED);
  for (int i = 0; i < l->threads; i++) pthread_join(l->ids[i], NULL);
  for (int64_t i = 0; l->errors && i < l->n; i++)
    if (l->errors[i] != out_of_memory) free(l->errors[i]);
  pthread_cond_destroy(&l->done);
  pthread_mutex_destroy(&l->lock);
  free(l->ids);
  free(l->head);
  free(l->paths);
  free(l->errors);
  free(l->rows);
  free(l);
}

/* ---- mapped files ---- */

int ty_read_ahead(const ty_tensor *x, const ty_tensor *index) {
  TY_TRY(check_rows("read_ahead", x, index));
  size_t bytes = row_bytes(x);
  for (int64_t i = 0; i < index->shape[0]; i++) read_ahead((const char *)x->data + (size_t)((const int64_t *)index->data)[i] * bytes, bytes);
  return 0;
}
