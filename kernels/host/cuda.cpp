/* Runs kernels on the CPU: blocks one after another, the threads of a block as coroutines that change at barriers and shuffles. Every second
 * block runs its threads in the reverse order, so that a missing barrier shows. */
#include "cuda.h"
#include <deque>
#include <malloc.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

dim3 gridDim, blockDim, blockIdx, threadIdx;

enum { MOST_THREADS = 1024, STACK = 256 << 10, WARP = 32 };
enum state { READY, AT_BARRIER, AT_SHUFFLE, FAILED, DONE };

struct thread {
  ucontext_t start;
  jmp_buf here;
  char *stack;
  state now;
  bool started;
};
static thread threads[MOST_THREADS];
static jmp_buf scheduler;
static unsigned current, count;
static uint64_t lanes[MOST_THREADS];
static void (*body)(void *);
static void *arguments;
static cudaError_t last_error;
static const char *failure = "";

static void leave(state why) {
  threads[current].now = why;
  if (_setjmp(threads[current].here) == 0) _longjmp(scheduler, 1);
}

/* Each coroutine lives on and runs one thread of one block after another. */
static void thread_main(void) {
  for (;;) {
    body(arguments);
    leave(DONE);
  }
}

static void resume(unsigned t) {
  current = t;
  threadIdx = dim3(t % blockDim.x, t / blockDim.x % blockDim.y, t / (blockDim.x * blockDim.y));
  if (_setjmp(scheduler) != 0) return;
  thread &own = threads[t];
  if (own.started) _longjmp(own.here, 1);
  own.started = true;
  own.stack = (char *)mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (own.stack == MAP_FAILED) abort();
  getcontext(&own.start);
  own.start.uc_stack.ss_sp = own.stack;
  own.start.uc_stack.ss_size = STACK;
  own.start.uc_link = NULL;
  makecontext(&own.start, thread_main, 0);
  setcontext(&own.start);
}

/* Lets those threads go on that all others of their warp or block have caught up with. Returns whether there are any. */
static bool release(void) {
  unsigned done = 0, waiting = 0;
  bool released = false;
  for (unsigned first = 0; first < count; first += WARP) {
    unsigned at_shuffle = 0;
    for (unsigned t = first; t < first + WARP; t++) {
      done += threads[t].now == DONE;
      waiting += threads[t].now == AT_BARRIER;
      at_shuffle += threads[t].now == AT_SHUFFLE;
    }
    if (at_shuffle == WARP) {
      for (unsigned t = first; t < first + WARP; t++) threads[t].now = READY;
      released = true;
    }
  }
  if (waiting == count) {
    for (unsigned t = 0; t < count; t++) threads[t].now = READY;
    released = true;
  }
  if (!released && done < count) {
    if (last_error == cudaSuccess) host_fail("a barrier or a shuffle was not reached by all threads");
    /* Coroutines in the middle of a kernel cannot be used again. */
    for (unsigned t = 0; t < count; t++) {
      if (threads[t].now == DONE) continue;
      munmap(threads[t].stack, STACK);
      threads[t].started = false;
    }
  }
  return released;
}

static void run_block(bool reverse) {
  for (unsigned t = 0; t < count; t++) threads[t].now = READY;
  do {
    for (unsigned i = 0; i < count; i++) {
      unsigned t = reverse ? count - 1 - i : i;
      if (threads[t].now == READY) resume(t);
    }
  } while (release());
}

void host_run(dim3 grid, dim3 block, void (*fn)(void *), void *context) {
  static bool reverse;
  count = block.x * block.y * block.z;
  if (count == 0 || count > MOST_THREADS || count % WARP != 0) {
    host_fail("a block must have 1 to 32 whole warps");
    return;
  }
  gridDim = grid, blockDim = block, body = fn, arguments = context;
  for (unsigned z = 0; z < grid.z; z++)
    for (unsigned y = 0; y < grid.y; y++)
      for (unsigned x = 0; x < grid.x && last_error == cudaSuccess; x++) {
        blockIdx = dim3(x, y, z);
        run_block(reverse = !reverse);
      }
}

/* ---- graphs ---- */

struct host_graph { std::vector<std::function<int()>> work; };
static host_graph *recording;
static bool is_spoiled; /* what waited during a capture has ended it, as in CUDA */

/* With TYCHO_HOST_DRY=1 work is counted and not done: what a large step asks for can be weighed where it could not be computed. */
static const bool is_dry = getenv("TYCHO_HOST_DRY") != NULL;
static int64_t work_count;
extern "C" int64_t host_work_count(void) { return work_count; }

int host_do(std::function<int()> work) {
  work_count++;
  if (is_dry) return 0;
  if (!recording) return work();
  recording->work.push_back(std::move(work));
  return 0;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t, int) {
  recording = new host_graph;
  is_spoiled = false;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *graph) {
  *graph = recording;
  recording = NULL;
  if (!is_spoiled) return cudaSuccess;
  delete *graph;
  *graph = NULL;
  return cudaErrorStreamCaptureUnsupported;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long) {
  *executable = new host_graph(*graph);
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t) {
  for (auto &work : executable->work)
    if (work() != 0 || last_error != cudaSuccess) return cudaErrorLaunchFailure;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) { return cudaGraphDestroy(executable); }

/* ---- streams and events ---- */

struct host_stream {
  std::deque<std::function<void()>> later;
  uint64_t done;
};
struct host_event { host_stream *of; uint64_t at; };

static void do_until(host_stream *stream, uint64_t at) {
  for (; stream->done < at; stream->done++) {
    stream->later.front()();
    stream->later.pop_front();
  }
}
static void do_all(host_stream *stream) { do_until(stream, stream->done + stream->later.size()); }

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
  *stream = new host_stream();
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  do_all(stream);
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) {
  *event = new host_event();
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  *event = {stream, stream ? stream->done + stream->later.size() : 0};
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (event->of) do_until(event->of, event->at);
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t event, unsigned) { return cudaEventSynchronize(event); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

/* ---- within kernels ---- */

void __syncthreads(void) { leave(AT_BARRIER); }
void host_sync_warp(void) { leave(AT_SHUFFLE); }
void expect_aligned(const void *at, size_t bytes) {
  if ((uintptr_t)at % bytes == 0) return;
  host_fail("misaligned address");
  leave(FAILED);
}
int host_fail(const char *why) {
  failure = why;
  last_error = cudaErrorLaunchFailure;
  return 1;
}
uint64_t *host_lanes(void) { return lanes + current / WARP * WARP; }

/* ---- memory and errors ---- */

/* Fresh memory is poisoned with NaN patterns: a kernel that reads what nobody wrote shows. */
static size_t held;
cudaError_t cudaMalloc(void **block, size_t bytes) {
  const char *size = getenv("TYCHO_HOST_MEMORY");
  if ((size && held + bytes > strtoull(size, NULL, 10)) || posix_memalign(block, 256, bytes) != 0) return cudaErrorMemoryAllocation;
  held += malloc_usable_size(*block);
  if (!is_dry) memset(*block, 0xff, bytes);
  return cudaSuccess;
}
cudaError_t cudaFree(void *block) {
  held -= malloc_usable_size(block);
  free(block);
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *free_now, size_t *total) {
  const char *size = getenv("TYCHO_HOST_MEMORY");
  *total = size ? strtoull(size, NULL, 10) : (size_t)1 << 40;
  *free_now = *total > held ? *total - held : 0;
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void **block, size_t bytes, unsigned) { return posix_memalign(block, 256, bytes) == 0 ? cudaSuccess : cudaErrorMemoryAllocation; }
cudaError_t cudaFreeHost(void *block) {
  free(block);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, int, cudaStream_t stream) {
  if (stream) stream->later.push_back([=] { memmove(to, from, bytes); });
  else host_do([=] {
    memmove(to, from, bytes);
    return 0;
  });
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (stream) do_all(stream);
  if (stream || !recording) return cudaSuccess;
  is_spoiled = true;
  return cudaErrorStreamCaptureUnsupported;
}
cudaError_t cudaGetLastError(void) {
  cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}
const char *cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorLaunchFailure              ? failure
         : error == cudaErrorMemoryAllocation         ? "out of memory"
         : error == cudaErrorStreamCaptureUnsupported ? "operation not permitted when stream is capturing"
                                                      : "no error";
}
