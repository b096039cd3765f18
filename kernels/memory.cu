/* The device's memory: pieces of large blocks, each from the first unused one that is large enough, joined with unused neighbours when they are freed.
 * The first, not the smallest: what comes and goes in each step then falls into its places of the step before. One stream orders all work, so a piece
 * may be used again at once. What a captured step took is set aside afterwards, so that no other work runs over it between two launches; all graphs
 * share it, for their launches are in order. */
#include "device.h"
#include <set>
#include <stdlib.h>
#include <unordered_map>
#include <vector>

enum { GRAIN = 512 }; /* bytes; as cudaMalloc's own */
static const int64_t LEAST = (int64_t)16 << 20, MOST = (int64_t)512 << 20; /* bytes of a block, but for pieces that are larger */

/* block: the number of its block; before, after: its neighbours there; is_graphs: a captured step had some of it. */
struct piece { int64_t block; char *at; int64_t size; piece *before, *after; bool is_unused, is_graphs; };
struct by_place {
  bool operator()(const piece *a, const piece *b) const { return a->block != b->block ? a->block < b->block : a->at < b->at; }
};
typedef std::set<piece *, by_place> pool;
static pool usual, aside; /* what is unused */
static std::unordered_map<void *, piece *> used;
/* TYCHO_GUARD=1: each piece is a block of its own, as long as was asked for, so that a sanitizer sees what goes beyond it. */
static const bool is_guarded = getenv("TYCHO_GUARD") != NULL;
static int64_t block_count, block_bytes, unused_bytes, live_bytes, peak_bytes;

static pool *pool_of(const piece *p) { return p->is_graphs && !device_is_capturing() ? &aside : &usual; }
static void put_back(piece *p) {
  p->is_unused = true;
  pool_of(p)->insert(p);
  unused_bytes += p->size;
}
static void take_out(pool *from, piece *p) {
  p->is_unused = false;
  from->erase(p);
  unused_bytes -= p->size;
}

/* A new block of at least size bytes, as one unused piece: as large as all others together, so that there are few. NULL when there is none. */
static piece *grow(int64_t size) {
  int64_t wanted = block_bytes < LEAST ? LEAST : block_bytes < MOST ? block_bytes : MOST;
  if (wanted < size || is_guarded) wanted = size;
  void *block = NULL;
  cudaError_t error;
  while ((error = cudaMalloc(&block, (size_t)wanted)) != cudaSuccess) {
    if (error != cudaErrorMemoryAllocation) return NULL; /* earlier work failed, which stays to be told */
    cudaGetLastError();                                  /* forgets it: the caller tells */
    if (wanted == size) return NULL;
    wanted = size;
  }
  block_bytes += wanted;
  piece *p = new piece{block_count++, (char *)block, wanted, NULL, NULL, true, false};
  put_back(p);
  return p;
}

static piece *find(int64_t size) {
  if (is_guarded) return NULL;
  for (piece *p : usual)
    if (p->size >= size) return p;
  return NULL;
}

/* Keeps the first size bytes of p; the rest is unused. */
static void cut(piece *p, int64_t size) {
  if (p->size == size) return;
  piece *rest = new piece{p->block, p->at + size, p->size - size, p, p->after, true, p->is_graphs};
  if (p->after) p->after->before = rest;
  p->after = rest;
  p->size = size;
  put_back(rest);
}

/* Makes p, which is in no pool, unused, as one with its unused neighbours of the same pool. */
static void release(piece *p) {
  for (piece *other : {p->after, p->before}) {
    if (!other || !other->is_unused || pool_of(other) != pool_of(p)) continue;
    take_out(pool_of(other), other);
    piece *first = other == p->after ? p : other, *second = first->after;
    first->size += second->size;
    first->is_graphs = first->is_graphs || second->is_graphs;
    first->after = second->after;
    if (first->after) first->after->before = first;
    delete second;
    p = first;
  }
  put_back(p);
}

void *ty_alloc(int64_t bytes) {
  if (bytes < 0 || bytes > (int64_t)1 << 46) return NULL;
  int64_t size = bytes == 0 ? (int64_t)GRAIN : is_guarded ? bytes : divide_up(bytes, GRAIN) * GRAIN;
  piece *p = find(size);
  if (!p) p = grow(size);
  if (!p && !device_is_capturing()) {
    ty_cache_clear(); /* blocks of which nothing is used */
    p = grow(size);
  }
  if (!p) return NULL;
  take_out(&usual, p);
  cut(p, size);
  p->is_graphs = device_is_capturing();
  used[p->at] = p;
  live_bytes += size;
  if (live_bytes > peak_bytes) peak_bytes = live_bytes;
  return p->at;
}
void ty_free(void *block, int64_t) {
  auto found = used.find(block);
  if (found == used.end()) return;
  piece *p = found->second;
  used.erase(found);
  live_bytes -= p->size;
  release(p);
  if (is_guarded) ty_cache_clear();
}

/* Puts the pieces of graphs that are in a pool where they belong now. */
static void settle(pool *from, bool are_graphs) {
  std::vector<piece *> moved;
  for (piece *p : *from)
    if (p->is_graphs) moved.push_back(p);
  for (piece *p : moved) {
    take_out(from, p);
    p->is_graphs = are_graphs;
  }
  for (piece *p : moved) release(p);
}
void memory_begin_capture(void) { settle(&aside, true); }
void memory_end_capture(void) { settle(&usual, true); }

void ty_cache_clear(void) {
  if (device_is_capturing()) return; /* freeing would wait */
  if (!device_has_graphs()) settle(&aside, false);
  for (auto at = usual.begin(); at != usual.end();) {
    piece *p = *at++;
    if (p->before || p->after) continue;
    take_out(&usual, p);
    block_bytes -= p->size;
    cudaFree(p->at);
    delete p;
  }
}
int device_full(const char *op, int64_t bytes) {
  if (!device_is_capturing()) TY_TRY(device_check(op, cudaStreamSynchronize(device_stream())));
  return ty_fail("%s: out of memory for %lld bytes of its own on the device; use a smaller batch or tycho.scope, or tycho.collect() first where tensors "
                 "went out of use outside of a scope", op, (long long)bytes);
}
void ty_memory(int64_t *live, int64_t *peak, int64_t *cached) {
  *live = live_bytes;
  *peak = peak_bytes;
  *cached = unused_bytes;
}
void ty_memory_reset_peak(void) { peak_bytes = live_bytes; }
int64_t ty_free_bytes(void) {
  int64_t unused = 0;
  for (const piece *p : usual) unused += p->size;
  size_t free_now = 0, total;
  return device_check("memory", cudaMemGetInfo(&free_now, &total)) ? 0 : (int64_t)free_now + unused;
}
