/* The device's memory, and copies between it and the host. */
#include "device.h"
#include <stdlib.h>
#include <unordered_set>

/* ---- memory ----
 * Freed blocks are kept by size class, as the CPU library does. One stream orders all work, so a block may be used again at once. What is captured
 * has a pool of its own, so that no other work runs over it between two launches; all graphs share it, for their launches are in order. */

struct node { void *block; node *next; };
struct pool { node *of[TY_SIZE_CLASSES]; int64_t bytes; };
static pool usual, captured;
static std::unordered_set<void *> of_graphs; /* the blocks of captured, in use or not */
static node *spare;
static int64_t live_bytes, peak_bytes;

static void *take(pool *p, int c, int64_t size) {
  node *n = p->of[c];
  if (!n) return NULL;
  void *block = n->block;
  p->of[c] = n->next;
  n->next = spare;
  spare = n;
  p->bytes -= size;
  return block;
}

static void clear(pool *p) {
  for (int c = 0; c < TY_SIZE_CLASSES; c++)
    while (node *n = p->of[c]) {
      p->of[c] = n->next;
      if (p == &captured) of_graphs.erase(n->block);
      cudaFree(n->block);
      free(n);
    }
  p->bytes = 0;
}

static void *allocate(int64_t size) {
  void *block = NULL;
  if (cudaMalloc(&block, (size_t)size) == cudaSuccess) return block;
  cudaGetLastError(); /* forgets it: the caller tells */
  return NULL;
}

void *ty_alloc(int64_t bytes) {
  if (bytes < 0 || bytes > (int64_t)1 << 46) return NULL;
  int64_t size;
  int c = ty_size_class(bytes, &size);
  void *block = take(device_is_capturing() ? &captured : &usual, c, size);
  if (!block) block = allocate(size);
  if (!block && !device_is_capturing()) {
    ty_cache_clear(); /* what other sizes have left may do */
    block = allocate(size);
  }
  if (!block) return NULL;
  if (device_is_capturing()) of_graphs.insert(block);
  live_bytes += size;
  if (live_bytes > peak_bytes) peak_bytes = live_bytes;
  return block;
}
void ty_free(void *block, int64_t bytes) {
  if (!block) return;
  int64_t size;
  int c = ty_size_class(bytes, &size);
  pool *p = of_graphs.count(block) ? &captured : &usual;
  node *n = spare;
  if (n) spare = n->next;
  else n = (node *)malloc(sizeof *n);
  live_bytes -= size;
  if (!n) {
    if (p == &usual) cudaFree(block);
    return;
  }
  *n = {block, p->of[c]};
  p->of[c] = n;
  p->bytes += size;
}
void ty_cache_clear(void) {
  if (device_is_capturing()) return; /* freeing would wait */
  clear(&usual);
  if (!device_has_graphs()) clear(&captured);
  while (node *n = spare) {
    spare = n->next;
    free(n);
  }
}
void ty_memory(int64_t *live, int64_t *peak, int64_t *cached) {
  *live = live_bytes;
  *peak = peak_bytes;
  *cached = usual.bytes + captured.bytes;
}
void ty_memory_reset_peak(void) { peak_bytes = live_bytes; }
int64_t ty_free_bytes(void) {
  size_t free_now = 0, total;
  return cudaMemGetInfo(&free_now, &total) == cudaSuccess ? (int64_t)free_now + usual.bytes : 0;
}

/* ---- copies ----
 * Uploads go through pinned memory: of pageable memory the driver may wait for the stream. Each size class has a few blocks, used in turn. */

enum { MOST_STAGES = 32 };
static const int64_t STAGED = (int64_t)256 << 20; /* bytes of a size class that are pinned, at most; half of it for one upload */

struct stage { void *host; cudaEvent_t sent; };
struct stages { stage of[MOST_STAGES]; int count, next; };
static stages staged[TY_SIZE_CLASSES];

static stage *take_stage(int64_t bytes) {
  int64_t size;
  stages *all = &staged[ty_size_class(bytes, &size)];
  int most = size * MOST_STAGES > STAGED ? (int)(STAGED / size) : (int)MOST_STAGES;
  stage *s = &all->of[all->next];
  if (all->next == all->count) {
    if (cudaHostAlloc(&s->host, (size_t)size, cudaHostAllocDefault) != cudaSuccess) return NULL;
    if (cudaEventCreateWithFlags(&s->sent, cudaEventDisableTiming) != cudaSuccess) return NULL;
    all->count++;
  } else if (cudaEventSynchronize(s->sent) != cudaSuccess) {
    return NULL;
  }
  all->next = (all->next + 1) % most;
  return s;
}

static int send(void *block, const void *host, int64_t bytes) {
  return device_check("upload", cudaMemcpyAsync(block, host, (size_t)bytes, cudaMemcpyHostToDevice, device_stream()));
}

int ty_upload(void *block, const void *host, int64_t bytes) {
  if (bytes == 0) return 0;
  if (device_is_capturing()) {
    void *constant = device_capture_constant(bytes);
    if (!constant) return ty_fail("upload: out of memory for %lld pinned bytes", (long long)bytes);
    return send(block, memcpy(constant, host, (size_t)bytes), bytes);
  }
  if (bytes > STAGED / 2) return send(block, host, bytes); /* no step's */
  stage *s = take_stage(bytes);
  if (!s) return device_check("upload", cudaGetLastError()) ? 1 : ty_fail("upload: out of memory for %lld pinned bytes", (long long)bytes);
  TY_TRY(send(block, memcpy(s->host, host, (size_t)bytes), bytes));
  return device_check("upload", cudaEventRecord(s->sent, device_stream()));
}
int ty_download(void *host, const void *block, int64_t bytes) {
  if (device_is_capturing()) return ty_sync(); /* says why not */
  TY_TRY(device_check("download", cudaMemcpyAsync(host, block, (size_t)bytes, cudaMemcpyDeviceToHost, device_stream())));
  return ty_sync();
}
