/* Errors, memory, threads and interrupts: what every other file stands on.
 * Does not know shapes' owners: Lua holds each block and gives it back. */
#define _GNU_SOURCE
#include "internal.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <omp.h>

static __thread char error_text[1024];

int ty_fail(const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(error_text, sizeof error_text, format, args);
  va_end(args);
  return 1;
}
const char *ty_error(void) { return error_text; }
int ty_version(void) { return TY_VERSION; }
int ty_real_size(void) { return (int)sizeof(real); }

/* ---- shapes ---- */

const char *ty_shape_text(const ty_tensor *t) {
  static __thread char ring[8][128];
  static __thread int next;
  char *text = ring[next++ & 7];
  int n = snprintf(text, 128, "(");
  for (int i = 0; i < t->ndim; i++) n += snprintf(text + n, 128 - n, i ? ", %lld" : "%lld", (long long)t->shape[i]);
  snprintf(text + n, 128 - n, ")");
  return text;
}
const char *ty_dtype_name(int dtype) {
  static const char *const names[] = {"float32", "float64", "int64", "int32", "uint8"};
  return dtype >= 0 && dtype < 5 ? names[dtype] : "unknown";
}
int ty_dtype_size(int dtype) {
  static const int sizes[] = {4, 8, 8, 4, 1};
  return sizes[dtype];
}
int ty_same_shape(const ty_tensor *a, const ty_tensor *b) {
  if (a->ndim != b->ndim) return 0;
  for (int i = 0; i < a->ndim; i++)
    if (a->shape[i] != b->shape[i]) return 0;
  return 1;
}
int ty_same_layout(const ty_tensor *a, const ty_tensor *b) {
  if (!ty_same_shape(a, b)) return 0;
  for (int i = 0; i < a->ndim; i++)
    if (a->shape[i] != 1 && a->stride[i] != b->stride[i]) return 0;
  return 1;
}
int ty_check_real(const char *op, const char *arg, const ty_tensor *t) {
  if (t->dtype == TY_REAL) return 0;
  return ty_fail("%s: %s must be %s, got %s %s", op, arg, ty_dtype_name(TY_REAL), ty_dtype_name(t->dtype), ty_shape_text(t));
}
int ty_check_dense(const char *op, const char *arg, const ty_tensor *t, int dtype, int ndim) {
  if (t->dtype != dtype) return ty_fail("%s: %s must be %s, got %s %s", op, arg, ty_dtype_name(dtype), ty_dtype_name(t->dtype), ty_shape_text(t));
  if (ndim >= 0 && t->ndim != ndim) return ty_fail("%s: %s must have %d dims, got shape %s", op, arg, ndim, ty_shape_text(t));
  if (!ty_is_dense(t)) return ty_fail("%s: %s of shape %s must be contiguous", op, arg, ty_shape_text(t));
  return 0;
}
int ty_check_image(const char *op, const char *arg, const ty_tensor *t) {
  TY_TRY(ty_check_real(op, arg, t));
  if (t->ndim != 4) return ty_fail("%s: %s must have shape (N, C, H, W), got %s", op, arg, ty_shape_text(t));
  if (!ty_is_image(t)) return ty_fail("%s: %s of shape %s must be channels-last in memory", op, arg, ty_shape_text(t));
  return 0;
}
int ty_check_size(const char *op, const char *arg, const ty_tensor *t, int dim, int64_t size) {
  if (dim < t->ndim && t->shape[dim] == size) return 0;
  return ty_fail("%s: %s must have size %lld in dim %d, got shape %s", op, arg, (long long)size, dim, ty_shape_text(t));
}

/* ---- memory ----
 * Freed blocks are kept by size class, because a training step asks for the same sizes again and again, and fresh pages
 * cost more than most ops. Size classes are 64 bytes up to 1 KiB and then eighths of a power of two: at most 12 % waste. */

enum { CLASSES = 512, HUGE_PAGE = 2 << 20 };
typedef struct block { struct block *next; } block;
static block *cache[CLASSES];
static int64_t live_bytes, peak_bytes, cached_bytes;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int size_class(int64_t bytes, int64_t *rounded) {
  if (bytes <= 1024) {
    int64_t n = bytes < 1 ? 1 : (bytes + 63) / 64;
    *rounded = n * 64;
    return (int)n;
  }
  int top = 63 - __builtin_clzll((uint64_t)(bytes - 1));
  int shift = top - 3;
  int64_t eighth = (bytes + ((int64_t)1 << shift) - 1) >> shift; /* 9..16 */
  *rounded = eighth << shift;
  return 17 + (top - 10) * 8 + (int)(eighth - 9);
}

void *ty_alloc(int64_t bytes) {
  if (bytes < 0 || bytes > (int64_t)1 << 46) return NULL;
  int64_t size;
  int c = size_class(bytes, &size);
  pthread_mutex_lock(&lock);
  block *b = cache[c];
  if (b) {
    cache[c] = b->next;
    cached_bytes -= size;
  }
  live_bytes += size;
  if (live_bytes > peak_bytes) peak_bytes = live_bytes;
  pthread_mutex_unlock(&lock);
  if (b) return b;
  void *p = NULL;
  int big = size >= HUGE_PAGE;
  if (posix_memalign(&p, big ? HUGE_PAGE : 64, (size_t)size) != 0) {
    pthread_mutex_lock(&lock);
    live_bytes -= size;
    pthread_mutex_unlock(&lock);
    return NULL;
  }
  if (big) madvise(p, (size_t)size, MADV_HUGEPAGE);
  return p;
}
void ty_free(void *p, int64_t bytes) {
  if (!p) return;
  int64_t size;
  int c = size_class(bytes, &size);
  pthread_mutex_lock(&lock);
  ((block *)p)->next = cache[c];
  cache[c] = p;
  live_bytes -= size;
  cached_bytes += size;
  pthread_mutex_unlock(&lock);
}
void ty_cache_clear(void) {
  pthread_mutex_lock(&lock);
  for (int c = 0; c < CLASSES; c++) {
    while (cache[c]) {
      block *b = cache[c];
      cache[c] = b->next;
      free(b);
    }
  }
  cached_bytes = 0;
  pthread_mutex_unlock(&lock);
}
void ty_memory(int64_t *live, int64_t *peak, int64_t *cached) {
  pthread_mutex_lock(&lock);
  *live = live_bytes;
  *peak = peak_bytes;
  *cached = cached_bytes;
  pthread_mutex_unlock(&lock);
}
void ty_memory_reset_peak(void) {
  pthread_mutex_lock(&lock);
  peak_bytes = live_bytes;
  pthread_mutex_unlock(&lock);
}
/* Leak checkers should see an empty house at exit. */
__attribute__((destructor)) static void clear_at_exit(void) { ty_cache_clear(); }

/* ---- threads ---- */

int ty_threads(void) { return omp_get_max_threads(); }
int ty_set_threads(int n) {
  int cores = omp_get_num_procs();
  if (n < 1 || n > cores) return ty_fail("threads: expected 1 to %d (this machine's cores), got %d", cores, n);
  omp_set_num_threads(n);
  return 0;
}
extern char *openblas_get_config(void);
const char *ty_blas(void) { return openblas_get_config(); }

/* ---- interrupts ---- */

static volatile sig_atomic_t interrupts, seen, mode;
static pthread_t main_thread;

/* In mode 1 the profiler's signal follows where somebody handles it: the prompt stops compiled loops by it (lua/tycho/repl/interrupt.lua). */
static void on_interrupt(int signal_number) {
  if (mode == 2 && seen) {
    signal(signal_number, SIG_DFL);
    raise(signal_number);
  }
  interrupts = seen = 1;
  struct sigaction profiler;
  if (mode == 1 && sigaction(SIGPROF, NULL, &profiler) == 0 && profiler.sa_handler != SIG_DFL && profiler.sa_handler != SIG_IGN)
    pthread_kill(main_thread, SIGPROF);
}
void ty_catch_interrupts(int wanted) {
  struct sigaction action = {0};
  action.sa_handler = wanted ? on_interrupt : SIG_DFL;
  action.sa_flags = wanted == 2 ? SA_RESTART : 0; /* files are written whole */
  main_thread = pthread_self();
  mode = wanted;
  seen = 0;
  sigaction(SIGINT, &action, NULL);
  action.sa_handler = wanted == 2 ? on_interrupt : SIG_DFL;
  sigaction(SIGTERM, &action, NULL);
}
int ty_interrupted(void) {
  int was = interrupts;
  interrupts = 0;
  return was;
}
int ty_is_unwanted(void) { return mode == 1 && interrupts; }
int ty_give_up(void) {
  if (!ty_is_unwanted()) return 0;
  interrupts = 0;
  return ty_fail("interrupted");
}

double ty_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
