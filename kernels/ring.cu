/* Bytes of the host on their way to the device. Copies have a stream of their own, and wait for the work, or it for them, on the device alone. */
#include "device.h"
#include <vector>

struct slot { void *host = NULL, *block = NULL; cudaEvent_t sent = NULL, read = NULL; };
struct ty_ring {
  int64_t bytes;
  cudaStream_t copies = NULL;
  std::vector<slot> slots;
};

static int open_slot(ty_ring *ring, slot *s) {
  TY_TRY(device_check("ring", cudaHostAlloc(&s->host, (size_t)ring->bytes, cudaHostAllocDefault)));
  s->block = ty_alloc(ring->bytes);
  if (!s->block) return device_full("ring", ring->bytes);
  TY_TRY(device_check("ring", cudaEventCreateWithFlags(&s->sent, cudaEventDisableTiming)));
  TY_TRY(device_check("ring", cudaEventCreateWithFlags(&s->read, cudaEventDisableTiming)));
  return device_check("ring", cudaEventRecord(s->read, device_stream())); /* by those who had the block before */
}

ty_ring *ty_ring_open(int64_t bytes, int slots) {
  ty_ring *ring = new ty_ring;
  ring->bytes = bytes;
  ring->slots.resize((size_t)slots);
  int failed = device_check("ring", cudaStreamCreateWithFlags(&ring->copies, cudaStreamNonBlocking));
  for (slot &s : ring->slots) failed = failed || open_slot(ring, &s);
  if (!failed) return ring;
  ty_ring_close(ring);
  return NULL;
}

int ty_ring_fill(ty_ring *ring, int at, void **host, void **block) {
  slot *s = &ring->slots[(size_t)at];
  *host = s->host, *block = s->block;
  return device_check("ring", cudaEventSynchronize(s->sent));
}

int ty_ring_send(ty_ring *ring, int at, int64_t bytes) {
  slot *s = &ring->slots[(size_t)at];
  if (bytes > ring->bytes) return ty_fail("ring: a slot has %lld bytes, not %lld", (long long)ring->bytes, (long long)bytes);
  if (device_is_capturing()) return ty_fail("a batch was asked for inside a captured step: make it before the step, and give it as an input");
  TY_TRY(device_check("ring", cudaStreamWaitEvent(ring->copies, s->read, 0)));
  TY_TRY(device_check("ring", cudaMemcpyAsync(s->block, s->host, (size_t)bytes, cudaMemcpyHostToDevice, ring->copies)));
  TY_TRY(device_check("ring", cudaEventRecord(s->sent, ring->copies)));
  return device_check("ring", cudaStreamWaitEvent(device_stream(), s->sent, 0));
}

int ty_ring_release(ty_ring *ring, int at) { return device_check("ring", cudaEventRecord(ring->slots[(size_t)at].read, device_stream())); }

void ty_ring_close(ty_ring *ring) {
  if (ring->copies) cudaStreamSynchronize(ring->copies);
  for (slot &s : ring->slots) {
    if (s.sent) cudaEventDestroy(s.sent);
    if (s.read) cudaEventDestroy(s.read);
    if (s.host) cudaFreeHost(s.host);
    ty_free(s.block, ring->bytes);
  }
  if (ring->copies) cudaStreamDestroy(ring->copies);
  delete ring;
}
