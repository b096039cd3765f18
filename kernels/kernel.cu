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

int ty_kernel_load(void **kernel, const char *name, const char *code) {
  cudaLibrary_t library;
  TY_TRY(device_check(name, cudaLibraryLoadData(&library, code, NULL, NULL, 0, NULL, NULL, 0)));
  return device_check(name, cudaLibraryGetKernel((cudaKernel_t *)kernel, library, name));
}

int ty_kernel_launch(const char *name, void *kernel, const int32_t *grid, const int32_t *block, void **arguments, int) {
  const dim3 blocks(grid[0], grid[1], grid[2]), threads(block[0], block[1], block[2]);
  TY_TRY(device_check(name, cudaLaunchKernel(kernel, blocks, threads, arguments, 0, device_stream())));
  return device_launched(name);
}

int ty_architecture(void) {
  int device = 0, major = 0, minor = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  return major * 10 + minor;
}
#endif
