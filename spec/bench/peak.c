/* The machine's limits, for the benchmark's shares: fused multiply-adds in registers, and copying memory. Prints GFLOP/s and GB/s of all
 * threads together: the best of several short runs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <omp.h>

#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
typedef float vec __attribute__((vector_size(4 * LANES)));
enum { CHAINS = 10, STEPS = 4000000, RUNS = 7 };
static const size_t BYTES = (size_t)256 << 20;

static volatile float sink; /* keeps the result alive */

static float multiply_adds(void) {
  vec sum[CHAINS], a, b;
  for (int i = 0; i < LANES; i++) a[i] = 0.999f, b[i] = 1e-3f;
  for (int k = 0; k < CHAINS; k++) sum[k] = b;
  for (int i = 0; i < STEPS; i++)
#pragma GCC unroll 10
    for (int k = 0; k < CHAINS; k++) sum[k] = sum[k] * a + b;
  float total = 0;
  for (int k = 0; k < CHAINS; k++) total += sum[k][0];
  return total;
}

int main(void) {
  char *from = malloc(BYTES), *to = malloc(BYTES);
  if (!from || !to) return 1;
  double best_fma = 0, best_copy = 0;
#pragma omp parallel
  {
    size_t n = BYTES / (size_t)omp_get_num_threads(), at = n * (size_t)omp_get_thread_num();
    memset(from + at, 1, n);
    memset(to + at, 2, n);
    for (int run = 0; run < RUNS; run++) {
#pragma omp barrier
      double start = omp_get_wtime();
      sink = multiply_adds();
#pragma omp barrier
      double middle = omp_get_wtime();
      memcpy(to + at, from + at, n);
#pragma omp barrier
#pragma omp master
      {
        double end = omp_get_wtime();
        double fma = 2.0 * LANES * CHAINS * STEPS * omp_get_num_threads() / (middle - start) * 1e-9;
        double copy = 2.0 * (double)BYTES / (end - middle) * 1e-9;
        if (fma > best_fma) best_fma = fma;
        if (copy > best_copy) best_copy = copy;
      }
    }
  }
  printf("%.1f %.1f\n", best_fma, best_copy);
  return 0;
}
