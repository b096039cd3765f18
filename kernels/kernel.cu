/* Kernels that are compiled at run time: loading and launching them. lua/tycho/kernel/ compiles. */
#include "device.h"
#ifdef TYCHO_HOST
#include <dlfcn.h>
#include <memory>
#include <vector>

/* The code is a shared object; its function tycho_kernel takes what CUDA's launch does. */
int ty_kernel_load(void **kernel, const char *name, const char *code) {
  void *object = dlopen(code, RTLD_NOW | RTLD_LOCAL);
  *kernel = object ? dlsym(object, "tycho_kernel") : NULL;
  return *kernel ? 0 : ty_fail("kernel %s: %s", name, dlerror());
}

int ty_kernel_launch(const char *name, void *kernel, const int32_t *grid, const int32_t *block, void **arguments, int count) {
  auto values = std::make_shared<std::vector<uint64_t>>((size_t)count);
  std::vector<void *> at;
  for (int i = 0; i < count; i++) at.push_back(memcpy(&(*values)[(size_t)i], arguments[i], sizeof(uint64_t)));
  host_launch(dim3(grid[0], grid[1], grid[2]), dim3(block[0], block[1], block[2]),
              [values, at, code = (void (*)(void **))kernel]() mutable { code(at.data()); });
  return device_launched(name);
}
int ty_architecture(void) { return 0; }
#else

static int check(const char *name, cudaError_t error) {
  return error == cudaSuccess ? 0 : ty_fail("kernel %s: the device failed: %s", name, cudaGetErrorString(error));
}

int ty_kernel_load(void **kernel, const char *name, const char *code) {
  cudaLibrary_t library;
  TY_TRY(check(name, cudaLibraryLoadData(&library, code, NULL, NULL, 0, NULL, NULL, 0)));
  return check(name, cudaLibraryGetKernel((cudaKernel_t *)kernel, library, name));
}

int ty_kernel_launch(const char *name, void *kernel, const int32_t *grid, const int32_t *block, void **arguments, int) {
  cudaError_t error = cudaLaunchKernel(kernel, dim3(grid[0], grid[1], grid[2]), dim3(block[0], block[1], block[2]), arguments, 0, device_stream());
  return error == cudaSuccess ? device_launched(name) : check(name, error);
}

int ty_architecture(void) {
  int device = 0, major = 0, minor = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  return major * 10 + minor;
}
#endif
