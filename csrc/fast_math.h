/* Functions that libm has only in scalar form. In float they are straight-line code that the compiler vectorises, accurate to a
 * few units in the last place; in double they are libm's. */
#ifndef TYCHO_FAST_MATH_H
#define TYCHO_FAST_MATH_H
#include "internal.h"

#ifdef TYCHO_DOUBLE

static inline real fast_exp(real x) { return exp(x); }
static inline real normal_cdf(real x) { return 0.5 * erfc(-x * 0.70710678118654752); }

#else

static inline float power_of_two(int32_t n) {
  union { int32_t i; float f; } u = {(n + 127) << 23};
  return u.f;
}

/* e^x: 0 below -87.3, infinity above 88.72. */
static inline real fast_exp(real x) {
  float clipped = x < -87.3f ? -87.3f : x > 88.72f ? 88.72f : x;
  float n = rintf(clipped * 1.44269504f);
  float r = clipped - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r * r + r + 1;
  int32_t half = (int32_t)n / 2;
  float y = p * power_of_two(half) * power_of_two((int32_t)n - half);
  y = x < -87.3f ? 0 : y;
  y = x > 88.72f ? INFINITY : y;
  return x != x ? x : y;
}

/* Standard normal distribution function by the rational Chebyshev fit of erfc (Press et al., Numerical Recipes, section 6.2:
 * relative error below 1.2e-7 everywhere). */
static inline real normal_cdf(real x) {
  float z = fabsf(x) * 0.70710678f;
  float t = 1 / (1 + 0.5f * z);
  float p = 0.17087277f;
  p = p * t - 0.82215223f;
  p = p * t + 1.48851587f;
  p = p * t - 1.13520398f;
  p = p * t + 0.27886807f;
  p = p * t - 0.18628806f;
  p = p * t + 0.09678418f;
  p = p * t + 0.37409196f;
  p = p * t + 1.00002368f;
  p = p * t - 1.26551223f;
  float tail = 0.5f * t * fast_exp(p - z * z);
  return x < 0 ? tail : 1 - tail;
}

#endif

static inline real normal_pdf(real x) { return (real)0.39894228040143268 * fast_exp(-x * x / 2); }

#endif
