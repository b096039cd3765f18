/* The device: opening it, waiting for it, and what went wrong on it. The first device that CUDA shows is used (CUDA_VISIBLE_DEVICES chooses). Not
 * for several threads at once: Lua has one. */
#include "device.h"
#include "blas.h"
#include "dnn.h"
#include <stdio.h>
#include <stdlib.h>

static cudaStream_t stream;
static fault *faults;
static int waits_for_each;
static bool tf32;

cudaStream_t device_stream(void) { return stream; }
fault *device_fault(void) { return faults; }
bool device_tf32(void) { return tf32; }
void ty_set_tf32(int on) { tf32 = on != 0; }

/* Work is queued, and what fails in it is told to who asks next. */
const char *device_hint(void) {
  return waits_for_each ? "" : "; earlier work may be at fault: run it again with TYCHO_SYNC=1 to see which";
}

int device_check(const char *op, cudaError_t error) {
  if (error == cudaSuccess) return 0;
  cudaGetLastError(); /* the same error, which would be told to the next op too */
  return ty_fail("%s: the device failed: %s%s", op, cudaGetErrorString(error), error == cudaErrorMemoryAllocation ? "" : device_hint());
}

int device_launched(const char *op) {
  TY_TRY(device_check(op, cudaGetLastError()));
  return waits_for_each && !device_is_capturing() ? device_check(op, cudaStreamSynchronize(stream)) : 0;
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
  TY_TRY(device_check("open", cudaGetDeviceProperties(&p, 0)));
  if (p.major * 10 + p.minor < OLDEST)
    return ty_fail("the %s has compute capability %d.%d; 8.0 or later is needed", p.name, p.major, p.minor);
  snprintf(text, sizeof text, "%s, %.1f GB, compute capability %d.%d, driver for CUDA %d.%d, %s, %s", p.name,
           (double)p.totalGlobalMem / 1e9, p.major, p.minor, driver / 1000, driver % 1000 / 10, blas_text(), dnn_text());
  return device_check("open", cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
}
#endif

int ty_open(void) {
  const char *sync = getenv("TYCHO_SYNC");
  waits_for_each = sync && *sync && *sync != '0';
  TY_TRY(find_device());
  TY_TRY(device_check("open", cudaHostAlloc((void **)&faults, sizeof *faults, cudaHostAllocDefault)));
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

/* ---- waiting ---- */

static int64_t waited;
int64_t ty_waits(void) { return waited; }
int ty_sync(void) {
  if (device_is_capturing()) return ty_fail("the host cannot wait for the device inside a captured step, where nothing has been computed yet");
  waited++;
  TY_TRY(device_check("wait", cudaStreamSynchronize(stream)));
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
