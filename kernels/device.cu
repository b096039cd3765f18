/* The device: opening it, its memory, copies between it and the host, and what went wrong on it. The first device that CUDA shows is used
 * (CUDA_VISIBLE_DEVICES chooses). Not for several threads at once: Lua has one. */
#include "device.h"
#include "blas.h"
#include "dnn.h"
#include <stdio.h>
#include <stdlib.h>

static cudaStream_t stream;
static fault *faults;
static int waits;
static bool tf32;

cudaStream_t device_stream(void) { return stream; }
fault *device_fault(void) { return faults; }
bool device_tf32(void) { return tf32; }
void ty_set_tf32(int on) { tf32 = on != 0; }

static int check(const char *op, cudaError_t error) {
  return error == cudaSuccess ? 0 : ty_fail("%s: the device failed: %s", op, cudaGetErrorString(error));
}

int device_launched(const char *op) {
  TY_TRY(check(op, cudaGetLastError()));
  return waits ? check(op, cudaStreamSynchronize(stream)) : 0;
}

/* ---- opening ---- */

static char text[512];

#ifdef TYCHO_HOST
static int find_device(void) {
  snprintf(text, sizeof text, "the CUDA kernels, compiled for the CPU");
  return 0;
}
#else
enum { OLDEST = 80 };

static int find_device(void) {
  int driver = 0, runtime = 0, count = 0;
  cudaRuntimeGetVersion(&runtime);
  cudaDriverGetVersion(&driver);
  if (driver == 0) return ty_fail("there is no NVIDIA driver on this machine (libcuda.so.1 is missing)");
  if (driver / 1000 < runtime / 1000)
    return ty_fail("the NVIDIA driver is for CUDA %d.%d and too old for this library (CUDA %d.%d): update the driver", driver / 1000,
                   driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
  TY_TRY(dnn_accept_version());
  cudaError_t error = cudaGetDeviceCount(&count);
  const char *visible = getenv("CUDA_VISIBLE_DEVICES");
  if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0))
    return visible ? ty_fail("CUDA_VISIBLE_DEVICES=%s names no GPU of this machine", visible)
                   : ty_fail("the NVIDIA driver finds no GPU on this machine");
  if (error != cudaSuccess) return ty_fail("the NVIDIA driver does not start: %s", cudaGetErrorString(error));
  cudaDeviceProp p;
  TY_TRY(check("open", cudaGetDeviceProperties(&p, 0)));
  if (p.major * 10 + p.minor < OLDEST)
    return ty_fail("the %s has compute capability %d.%d; 8.0 or later is needed", p.name, p.major, p.minor);
  snprintf(text, sizeof text, "%s, %.1f GB, compute capability %d.%d, driver for CUDA %d.%d, %s, %s", p.name,
           (double)p.totalGlobalMem / 1e9, p.major, p.minor, driver / 1000, driver % 1000 / 10, blas_text(), dnn_text());
  return check("open", cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
}
#endif

int ty_open(void) {
  const char *sync = getenv("TYCHO_SYNC");
  waits = sync && *sync && *sync != '0';
  TY_TRY(find_device());
  TY_TRY(check("open", cudaHostAlloc((void **)&faults, sizeof *faults, cudaHostAllocDefault)));
  memset(faults, 0, sizeof *faults);
  TY_TRY(blas_open());
  return dnn_open();
}
const char *ty_device_text(void) { return text; }
int ty_version(void) { return TY_VERSION; }
/* What is queued on a device cannot be called back; the header asks for the name. */
static const volatile int never = 0;
const volatile int *ty_unwanted = &never;
int ty_real_size(void) { return (int)sizeof(real); }

/* ---- memory ----
 * Freed blocks are kept by size class, as the CPU library does. One stream orders all work, so a block may be used again at once. */

struct node { void *block; node *next; };
static node *cache[TY_SIZE_CLASSES], *spare;
static int64_t live_bytes, peak_bytes, cached_bytes;

void *ty_alloc(int64_t bytes) {
  if (bytes < 0 || bytes > (int64_t)1 << 46) return NULL;
  int64_t size;
  int c = ty_size_class(bytes, &size);
  void *block = NULL;
  if (node *n = cache[c]) {
    block = n->block;
    cache[c] = n->next;
    n->next = spare;
    spare = n;
    cached_bytes -= size;
  } else if (cudaMalloc(&block, (size_t)size) != cudaSuccess) {
    ty_cache_clear(); /* what other sizes have left may do */
    if (cudaMalloc(&block, (size_t)size) != cudaSuccess) block = NULL;
    cudaGetLastError(); /* forgets it: the caller tells */
    if (!block) return NULL;
  }
  live_bytes += size;
  if (live_bytes > peak_bytes) peak_bytes = live_bytes;
  return block;
}
void ty_free(void *block, int64_t bytes) {
  if (!block) return;
  int64_t size;
  int c = ty_size_class(bytes, &size);
  node *n = spare;
  if (n) spare = n->next;
  else n = (node *)malloc(sizeof *n);
  live_bytes -= size;
  if (!n) {
    cudaFree(block);
    return;
  }
  *n = {block, cache[c]};
  cache[c] = n;
  cached_bytes += size;
}
void ty_cache_clear(void) {
  for (int c = 0; c < TY_SIZE_CLASSES; c++)
    while (node *n = cache[c]) {
      cache[c] = n->next;
      cudaFree(n->block);
      free(n);
    }
  while (node *n = spare) {
    spare = n->next;
    free(n);
  }
  cached_bytes = 0;
}
void ty_memory(int64_t *live, int64_t *peak, int64_t *cached) {
  *live = live_bytes;
  *peak = peak_bytes;
  *cached = cached_bytes;
}
void ty_memory_reset_peak(void) { peak_bytes = live_bytes; }
int64_t ty_free_bytes(void) {
  size_t free_now = 0, total;
  return cudaMemGetInfo(&free_now, &total) == cudaSuccess ? (int64_t)free_now + cached_bytes : 0;
}

/* ---- copies and waiting ---- */

int ty_upload(void *block, const void *host, int64_t bytes) {
  /* Returns once CUDA has copied pageable memory aside, without waiting for the device: the host's may be freed or changed next. */
  return check("upload", cudaMemcpyAsync(block, host, (size_t)bytes, cudaMemcpyHostToDevice, stream));
}
int ty_download(void *host, const void *block, int64_t bytes) {
  TY_TRY(check("download", cudaMemcpyAsync(host, block, (size_t)bytes, cudaMemcpyDeviceToHost, stream)));
  return ty_sync();
}
int ty_sync(void) {
  TY_TRY(check("wait", cudaStreamSynchronize(stream)));
  fault f = *faults;
  if (f.kind == FAULT_NONE) return 0;
  memset(faults, 0, sizeof *faults);
  long long value = f.value, position = f.position, last = f.limit - 1;
  if (f.kind == FAULT_TARGET)
    return ty_fail("cross_entropy: target %lld of row %lld is out of range 0..%lld (classes count from 0); found on the device after the call",
                   value, position, last);
  return ty_fail("%s: index %lld at position %lld is out of range 0..%lld (tensors count from 0); found on the device after the call",
                 f.kind == FAULT_IMAGE ? "normalize_images" : "index_select", value, position, last);
}
