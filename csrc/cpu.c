/* Levels: the instruction sets that the float library is compiled for, one library each, and what this machine runs of them.
 * Which library to load is lib.lua's decision. */
#include "internal.h"

const char *ty_level(void) {
#if defined(__AVX512F__)
  return "avx512";
#elif defined(__AVX2__)
  return "avx2";
#else
  return "plain";
#endif
}

/* The compiler's own question to the processor: it also asks whether the system saves the registers. */
const char *ty_level_lacks(const char *level) {
  int wide = !strcmp(level, "avx512");
  if (!wide && strcmp(level, "avx2")) return NULL;
#ifdef __x86_64__
#define NEED(feature) do { if (!__builtin_cpu_supports(feature)) return feature; } while (0)
  __builtin_cpu_init();
  NEED("avx2");
  NEED("fma");
  if (!wide) return NULL;
  NEED("avx512f");
  NEED("avx512bw");
  NEED("avx512dq");
  NEED("avx512vl");
  return NULL;
#else
  return level;
#endif
}
