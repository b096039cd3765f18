/* Functions that libm has only in scalar form. In float they are straight-line code that the compiler vectorises, accurate to a
 * few units in the last place; in double they are libm's. */
#ifndef TYCHO_FAST_MATH_H
#define TYCHO_FAST_MATH_H
#include "internal.h"

#ifdef TYCHO_DOUBLE

static inline real fast_exp(real x) { return exp(x); }
static inline real normal_cdf(real x) { return 0.5 * erfc(-x * 0.70710678118654752); }

#else

/* e^x: 0 below -87.3, infinity above 88.72. Between them the result and its power of two are normal numbers, so adding to the exponent scales. */
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
  union { float f; uint32_t bits; } y = {p};
  y.bits += (uint32_t)(int32_t)n << 23;
  y.f = x < -87.3f ? 0 : y.f;
  y.f = x > 88.72f ? INFINITY : y.f;
  return x != x ? x : y.f;
}

/* Standard normal distribution function: e^(-z^2) t P(t) with t = 1 / (1 + 0.4 z) is erfc(z) for z >= 0, where P is the polynomial of degree 8
 * with the least relative error (3e-8) on z <= 6.6. The exponential is normal_pdf's, so that the compiler computes it once for both. */
static inline real normal_cdf(real x) {
  float t = 1 / (1 + 0.4f * 0.70710678f * fabsf(x));
  float p = 0.0308017563f;
  p = p * t - 0.0875315443f;
  p = p * t - 0.0298827067f;
  p = p * t + 0.224739239f;
  p = p * t - 0.0201203655f;
  p = p * t + 0.238718748f;
  p = p * t + 0.189422861f;
  p = p * t + 0.228340045f;
  p = p * t + 0.225511998f;
  float tail = 0.5f * fast_exp(-x * x / 2) * t * p;
  return x < 0 ? tail : 1 - tail;
}

#endif

static inline real normal_pdf(real x) { return (real)0.39894228040143268 * fast_exp(-x * x / 2); }

#endif
