/* Memory, threads and interrupts: what every other file stands on.
 * Does not know shapes' owners: Lua holds each block and gives it back. */
#define _GNU_SOURCE
#include "internal.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <omp.h>

int ty_version(void) { return TY_VERSION; }
int ty_real_size(void) { return (int)sizeof(real); }

/* ---- memory ----
 * Freed blocks are kept by size class, because a training step asks for the same sizes again and again, and fresh pages
 * cost more than most ops. */

enum { HUGE_PAGE = 2 << 20 };
typedef struct block { struct block *next; } block;
static block *cache[TY_SIZE_CLASSES];
static int64_t live_bytes, peak_bytes, cached_bytes;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void *ty_alloc(int64_t bytes) {
  if (bytes < 0 || bytes > (int64_t)1 << 46) return NULL;
  int64_t size;
  int c = ty_size_class(bytes, &size);
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
  int c = ty_size_class(bytes, &size);
  pthread_mutex_lock(&lock);
  ((block *)p)->next = cache[c];
  cache[c] = p;
  live_bytes -= size;
  cached_bytes += size;
  pthread_mutex_unlock(&lock);
}
void ty_cache_clear(void) {
  pthread_mutex_lock(&lock);
  for (int c = 0; c < TY_SIZE_CLASSES; c++) {
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
static volatile int unwanted;
const volatile int *ty_unwanted = &unwanted;
static pthread_t main_thread;

/* In mode 1 the profiler's signal follows where somebody handles it: the prompt stops compiled loops by it (lua/tycho/repl/interrupt.lua). A terminal
 * that closes sends its SIGHUP, and its shell another: no second one of a person. */
static void on_interrupt(int signal_number) {
  if (mode == 2 && seen && signal_number != SIGHUP) {
    signal(signal_number, SIG_DFL);
    raise(signal_number);
  }
  interrupts = seen = 1;
  unwanted = mode == 1;
  struct sigaction profiler;
  if (mode == 1 && sigaction(SIGPROF, NULL, &profiler) == 0 && profiler.sa_handler != SIG_DFL && profiler.sa_handler != SIG_IGN)
    pthread_kill(main_thread, SIGPROF);
}
/* Nothing, instead of SIG_IGN, which child processes would inherit. */
static void on_closed_pipe(int signal_number) { (void)signal_number; }
void ty_catch_interrupts(int wanted) {
  struct sigaction action = {0}, hangup;
  action.sa_handler = wanted ? on_interrupt : SIG_DFL;
  action.sa_flags = wanted >= 2 ? SA_RESTART : 0; /* files are written whole */
  main_thread = pthread_self();
  mode = wanted;
  seen = 0;
  unwanted = mode == 1 && interrupts;
  sigaction(SIGINT, &action, NULL);
  action.sa_handler = wanted >= 2 ? on_interrupt : SIG_DFL;
  sigaction(SIGTERM, &action, NULL);
  if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, NULL); /* ignored: under nohup */
  if (wanted >= 2) {
    action.sa_handler = on_closed_pipe;
    sigaction(SIGPIPE, &action, NULL);
  }
}
int ty_interrupted(void) {
  int was = __atomic_exchange_n(&interrupts, 0, __ATOMIC_SEQ_CST); /* one that comes now is not lost */
  if (was) unwanted = 0;
  return was;
}

double ty_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
