/* 16-bit floats as their bits: IEEE's half (float16) and the upper half of a float (bfloat16). Rounding is to nearest, ties to even; what is too
 * large becomes infinite. The processor's own conversions are not assumed. */
#ifndef TYCHO_HALF_H
#define TYCHO_HALF_H
#include <stdint.h>
#include <string.h>

static inline uint32_t ty_bits_of(float v) {
  uint32_t bits;
  memcpy(&bits, &v, sizeof bits);
  return bits;
}
static inline float ty_float_of(uint32_t bits) {
  float v;
  memcpy(&v, &bits, sizeof v);
  return v;
}

static inline float ty_from_half(uint16_t half) {
  uint32_t rest = half & 0x7fffu, bits = ty_bits_of(ty_float_of(rest << 13) * 0x1p112f); /* the exponents' biases differ by 112 */
  if (rest >= 0x7c00) bits |= 0x7f800000u;
  return ty_float_of(bits | (uint32_t)(half & 0x8000u) << 16);
}
static inline uint16_t ty_to_half(float v) {
  enum { INFINITE = 0x7f800000, BEYOND = 0x47800000, NORMAL = 0x38800000 }; /* bits of infinity, 2^16 and 2^-14 */
  uint32_t bits = ty_bits_of(v), sign = bits >> 16 & 0x8000u;
  bits &= 0x7fffffffu;
  if (bits > INFINITE) bits = 0x7e00;
  else if (bits >= BEYOND) bits = 0x7c00;
  else if (bits >= NORMAL) bits = (bits + 0xfff + (bits >> 13 & 1) - (112u << 23)) >> 13;
  else bits = ty_bits_of(ty_float_of(bits) + 0.5f) - ty_bits_of(0.5f); /* the sum rounds to multiples of 2^-24 */
  return (uint16_t)(sign | bits);
}

static inline float ty_from_brain(uint16_t brain) { return ty_float_of((uint32_t)brain << 16); }
static inline uint16_t ty_to_brain(float v) {
  uint32_t bits = ty_bits_of(v);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40);
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#endif
