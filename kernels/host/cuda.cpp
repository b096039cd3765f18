/* Runs kernels on the CPU: blocks one after another, the threads of a block as coroutines that change at barriers and shuffles. Every second
 * block runs its threads in the reverse order, so that a missing barrier shows; every second launch its blocks, as they may come in any order. */
#include "cuda.h"
#include <deque>
#include <iterator>
#include <limits.h>
#include <malloc.h>
#include <map>
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

int host_accept(dim3 grid, dim3 block) {
  unsigned n = block.x * block.y * block.z;
  if (n == 0 || n > MOST_THREADS || n % WARP != 0) return host_fail("a block must have 1 to 32 whole warps");
  return grid.x > INT_MAX || grid.y > UINT16_MAX || grid.z > UINT16_MAX ? host_fail("the grid is too large") : 0;
}

void host_run(dim3 grid, dim3 block, void (*fn)(void *), void *context) {
  static bool reverse, last_first;
  count = block.x * block.y * block.z;
  const uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z;
  gridDim = grid, blockDim = block, body = fn, arguments = context;
  last_first = !last_first;
  for (uint64_t i = 0; i < blocks && last_error == cudaSuccess; i++) {
    uint64_t b = last_first ? blocks - 1 - i : i;
    blockIdx = dim3((unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y), (unsigned)(b / grid.x / grid.y));
    run_block(reverse = !reverse);
  }
}

/* ---- streams and events ---- */

struct host_graph { std::vector<std::function<int()>> work; };
static host_graph *recording; /* what the usual stream is asked for, while a graph is captured */
static bool is_spoiled;
static bool is_captured(cudaStream_t stream) { return recording && !stream; }
/* What a call returns stays to be asked for; an earlier failure stays before it. */
static cudaError_t told(cudaError_t error) {
  if (last_error == cudaSuccess) last_error = error;
  return last_error;
}
/* For what is no work to be repeated: it ends the capture, as in CUDA. */
static cudaError_t spoil(void) {
  is_spoiled = true;
  return told(cudaErrorStreamCaptureUnsupported);
}

struct host_stream {
  std::deque<std::function<int()>> later;
  uint64_t done;
};
struct host_event { host_stream *of; uint64_t at; };
static host_stream usual;
static host_stream *own(cudaStream_t stream) { return stream ? stream : &usual; }

/* What follows on a failure is not done. */
static void do_until(host_stream *stream, uint64_t at) {
  for (; stream->done < at; stream->done++) {
    std::function<int()> work = std::move(stream->later.front());
    stream->later.pop_front();
    if (last_error == cudaSuccess && work() != 0 && last_error == cudaSuccess) host_fail("a library of the CPU failed");
  }
}
static void do_all(host_stream *stream) { do_until(stream, stream->done + stream->later.size()); }

/* With TYCHO_HOST_DRY=1 work is counted and not done: what a large step asks for can be weighed where it could not be computed. */
static const bool is_dry = getenv("TYCHO_HOST_DRY") != NULL;
static int64_t work_count;
extern "C" int64_t host_work_count(void) { return work_count; }

void host_do(std::function<int()> work) {
  work_count++;
  if (is_dry) return;
  if (recording) recording->work.push_back(std::move(work));
  else usual.later.push_back(std::move(work));
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
  *stream = new host_stream();
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  do_all(stream); /* and stays, because other streams may have to ask whether it was done */
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) {
  *event = new host_event();
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (is_captured(stream)) return spoil();
  *event = {own(stream), own(stream)->done + own(stream)->later.size()};
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (event->of) do_until(event->of, event->at);
  return last_error;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (is_captured(stream)) return spoil();
  own(stream)->later.push_back([now = *event] {
    if (now.of) do_until(now.of, now.at);
    return 0;
  });
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

/* ---- graphs ---- */

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
  return told(cudaErrorStreamCaptureUnsupported);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long) {
  *executable = new host_graph(*graph);
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  own(stream)->later.push_back([=] {
    for (auto &work : executable->work)
      if (work() != 0 || last_error != cudaSuccess) return 1;
    return 0;
  });
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) { return cudaGraphDestroy(executable); }

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
  if (last_error != cudaSuccess) return last_error;
  if ((size && held + bytes > strtoull(size, NULL, 10)) || posix_memalign(block, 256, bytes) != 0) return told(cudaErrorMemoryAllocation);
  held += malloc_usable_size(*block);
  if (!is_dry) memset(*block, 0xff, bytes);
  return cudaSuccess;
}
cudaError_t cudaFree(void *block) {
  do_all(&usual);
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
static std::map<char *, size_t> pinned;
static bool is_pinned(const void *at) {
  auto next = pinned.upper_bound((char *)at);
  return next != pinned.begin() && (char *)at < std::prev(next)->first + std::prev(next)->second;
}
cudaError_t cudaHostAlloc(void **block, size_t bytes, unsigned) {
  if (posix_memalign(block, 256, bytes) != 0) return told(cudaErrorMemoryAllocation);
  pinned[(char *)*block] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void *block) {
  memset(block, 0xff, pinned[(char *)block]); /* what still reads it shows */
  pinned.erase((char *)block);
  free(block);
  return cudaSuccess;
}
/* Pageable memory of the host, too, is read or written when its turn comes, as CUDA may do; its copies cannot be captured. */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, cudaStream_t stream) {
  bool is_pageable = (kind == cudaMemcpyHostToDevice && !is_pinned(from)) || (kind == cudaMemcpyDeviceToHost && !is_pinned(to));
  auto copy = [=] {
    memmove(to, from, bytes);
    return 0;
  };
  if (is_pageable && is_captured(stream)) return spoil();
  if (stream) stream->later.push_back(copy);
  else host_do(copy);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (is_captured(stream)) return spoil();
  do_all(own(stream));
  return last_error;
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
