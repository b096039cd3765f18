/* Copies between the host's memory and the device's. Uploads go through pinned memory: of pageable memory the driver may wait for the stream. Each
 * size class has a few blocks, used in turn. */
#include "device.h"

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
  if (bytes > STAGED / 2) { /* no step's; who called may change its memory at once */
    TY_TRY(send(block, host, bytes));
    return device_check("upload", cudaStreamSynchronize(device_stream()));
  }
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
